"""Aggregate stored GPT-4 reviews of LLaVA-Bench (in the wild) answers: their rating relative to the reference's.

LLaVA-Bench: https://arxiv.org/abs/2304.08485.
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from llava.eval.tasks.base import SENTENCES, Images, Task, asked
from llava.eval.tasks.matching import add_output_arg, check_same_questions, naming_files, publish
from llava.eval.tasks.scores import Result, percentile_interval
from llava.records import InputError, read_jsonl

REVIEW_KEYS = {"question_id": (int, str), "tuple": list}
OPTIONAL_KEYS = {"category": str}


def ratings(reviews: Sequence[Mapping[str, Any]]) -> dict[str, list[list[float]]]:
    """Pairs of ratings, reference first, for every category and for ``all``."""
    found: dict[str, list[list[float]]] = {"all": []}
    for review in reviews:
        for name in {"all", review.get("category", "all")}:
            found.setdefault(name, []).append(review["tuple"])
    return dict(sorted(found.items()))


def score(reviews: Sequence[Mapping[str, Any]], question_ids: Sequence[int | str] | None = None) -> Result:
    """100 times the mean rating of the answers over the mean rating of the references, neither rounded before.

    A review that could not be read holds (-1, -1); like LLaVA's summary the means include it.

    Args:
        question_ids: the questions, each of which must be reviewed once; not checked if not given.

    Raises:
        InputError: reviews that do not belong to the questions, or references rated 0 or less in the mean, as where no
            review could be read.
    """
    if question_ids is not None:
        check_same_questions((str(review["question_id"]) for review in reviews), map(str, question_ids))
    by_category = {name: np.array(pairs, dtype=float) for name, pairs in ratings(reviews).items()}
    means = {name: pairs.mean(0) for name, pairs in by_category.items()}
    if low := [(name, reference) for name, (reference, _) in means.items() if reference <= 0]:
        raise InputError(
            f"the mean rating of the references is {low[0][1]:g} in {low[0][0]!r}, so there is no relative score"
        )
    return Result(
        benchmark="llavabench",
        metric="relative score",
        value=float(100 * means["all"][1] / means["all"][0]),
        count=len(reviews),
        missing=0,
        unparsable=sum(min(review["tuple"]) < 0 for review in reviews),
        ci95=_interval(by_category["all"]),
        details={
            "by_category": {
                name: {
                    "value": float(100 * answer / reference),
                    "reference": float(10 * reference),
                    "answer": float(10 * answer),
                    "count": len(by_category[name]),
                }
                for name, (reference, answer) in means.items()
            }
        },
    )


def _interval(pairs: np.ndarray, resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the relative score in percent; reviews are resampled as pairs.

    Resamples whose references are rated 0 or less have no score and are left out.
    """
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


def read_reviews(path: str) -> list[dict[str, Any]]:
    """A file of reviews, checked.

    Raises:
        InputError: a review without a pair of numbers.
    """
    reviews = read_jsonl(path, REVIEW_KEYS, OPTIONAL_KEYS)
    for number, review in enumerate(reviews, 1):
        if len(review["tuple"]) != 2 or not all(type(rating) in (int, float) for rating in review["tuple"]):
            raise InputError(f"{path}, review {number}: expected two ratings, found {review['tuple']}")
    return reviews


def eval_answers(args: argparse.Namespace) -> None:
    """Aggregate ``args.result_file``."""
    question_ids = None
    if args.question_file:
        question_ids = [line["question_id"] for line in read_jsonl(args.question_file, {"question_id": (int, str)})]
    reviews = read_reviews(args.result_file)
    with naming_files(result_file=args.result_file):
        result = score(reviews, question_ids)
    publish(result, report(result), args.output)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m llava.eval score llavabench", description=__doc__)
    parser.add_argument("--result-file", required=True, help="reviews, one JSON object per line")
    parser.add_argument("--question-file", help="questions.jsonl, to check that each is reviewed once")
    add_output_arg(parser)
    return parser


SOURCE = "https://huggingface.co/datasets/liuhaotian/llava-bench-in-the-wild"

LLAVABENCH = Task(
    name="llavabench",
    title="LLaVA-W",
    folder="llava-bench-in-the-wild",
    asks=SENTENCES,
    splits=asked("questions", 60, SOURCE),
    images=Images("images", SOURCE),
    judged="reviews",
    server="GPT-4 with LLaVA's eval_gpt_review_bench.py",
)
