"""LLaVA-Bench (in the wild): open questions, whose answers GPT-4 rates beside a reference's.

https://arxiv.org/abs/2304.08485.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from llava.eval.tasks.base import SENTENCES, Given, Task
from llava.eval.tasks.files import DataFile, Images, asked
from llava.eval.tasks.matching import check_same_questions, ids
from llava.eval.tasks.scores import Result, percentile_interval
from llava.records import InputError

SOURCE = "https://huggingface.co/datasets/liuhaotian/llava-bench-in-the-wild"


def ratings(reviews: Sequence[Mapping[str, Any]]) -> dict[str, list[list[float]]]:
    """Pairs of ratings, reference first, for every category and for ``all``."""
    found: dict[str, list[list[float]]] = {"all": []}
    for review in reviews:
        for name in {"all", review.get("category", "all")}:
            found.setdefault(name, []).append(review["tuple"])
    return dict(sorted(found.items()))


def score(given: Given) -> Result:
    """100 times the mean rating of the answers over the mean rating of the references, neither rounded before.

    A review that could not be read holds (-1, -1); like LLaVA's summary the means include it. Where the questions are
    given, each of them must be reviewed once.

    Raises:
        InputError: reviews that do not belong to the questions, or references rated 0 or less in the mean, as where no
            review could be read.
    """
    import numpy as np  # names of benchmarks are looked up without it

    reviews = given.answers
    if given.questions is not None:
        check_same_questions(ids(reviews), ids(given.questions))
    by_category = {name: np.array(pairs, dtype=float) for name, pairs in ratings(reviews).items()}
    means = {name: pairs.mean(0) for name, pairs in by_category.items()}
    if low := [(name, reference) for name, (reference, _) in means.items() if reference <= 0]:
        raise InputError(
            f"the mean rating of the references is {low[0][1]:g} in {low[0][0]!r}, so there is no relative score"
        )
    by_name = {
        name: {
            "value": float(100 * answer / reference),
            "reference": float(10 * reference),
            "answer": float(10 * answer),
            "count": len(by_category[name]),
        }
        for name, (reference, answer) in means.items()
    }
    unread, interval = sum(min(review["tuple"]) < 0 for review in reviews), _interval(by_category["all"])
    value, details = by_name["all"]["value"], {"by_category": by_name}
    return Result("llavabench", "relative score", value, len(reviews), 0, unread, interval, details)


def _interval(pairs: Any, resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the relative score in percent; reviews are resampled as pairs.

    Resamples whose references are rated 0 or less have no score and are left out.
    """
    import numpy as np  # names of benchmarks are looked up without it

    rng = np.random.default_rng(seed)
    draws = pairs[rng.integers(len(pairs), size=(resamples, len(pairs)))].mean(1)  # (resamples, 2)
    draws = draws[draws[:, 0] > 0]
    return percentile_interval(100 * draws[:, 1] / draws[:, 0])


def report(result: Result) -> str:
    """The lines that LLaVA prints: category, relative score, ten times the mean ratings of reference and answer."""
    return "\n".join(
        f"{name} {entry['value']:.1f} {entry['reference']:.1f} {entry['answer']:.1f}"
        for name, entry in result.details["by_category"].items()
    )


def _check(reviews: Sequence[Mapping[str, Any]], file: str) -> None:
    for number, review in enumerate(reviews, 1):
        if len(review["tuple"]) != 2 or not all(type(rating) in (int, float) for rating in review["tuple"]):
            raise InputError(f"{file}, review {number}: expected two ratings, found {review['tuple']}")


REVIEWS = DataFile(
    "reviews.jsonl", "GPT-4", keys={"question_id": (int, str), "tuple": list}, optional={"category": str}, check=_check
)
LLAVABENCH = Task(
    name="llavabench",
    title="LLaVA-W",
    folder="llava-bench-in-the-wild",
    asks=SENTENCES,
    splits=asked("questions", 60, SOURCE),
    images=Images("images", SOURCE),
    judged="reviews",
    verdicts=REVIEWS,
    questions=DataFile("questions.jsonl", SOURCE, keys={"question_id": (int, str)}),
    score_reads=(),
    score_takes=("questions",),
    score=score,
    report=report,
    server="GPT-4 with LLaVA's eval_gpt_review_bench.py",
)
