"""MM-Vet: open questions that need several abilities, graded by GPT-4. https://arxiv.org/abs/2308.02490.

Its evaluator (whyu/MM-Vet_Evaluator) writes the grades.
"""

from dataclasses import replace
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from llava.eval.tasks.base import SENTENCES, Given, Task, only
from llava.eval.tasks.files import DataFile, Images, asked, write_json
from llava.eval.tasks.matching import by_question, check_same_questions, ids
from llava.eval.tasks.scores import Result, percent, percent_by, percent_interval, scores_of
from llava.records import InputError

SOURCE = "https://github.com/yuweihao/MM-Vet/releases/download/v1/mm-vet.zip"
CAPABILITIES = ("rec", "ocr", "know", "gen", "spat", "math")


def score(given: Given) -> Result:
    """100 times the mean grade; with several grading runs, their mean, and their deviation in ``details``.

    The grades of a sample are a list ``score`` with one in [0, 1] per run; anything else counts as 0.

    Raises:
        InputError: not exactly the annotated samples are graded, or some in fewer runs than others.
    """
    grades, (samples,) = given.answers, given.annotations
    check_same_questions(grades, samples)
    runs = {len(grade["score"]) for grade in grades.values()}
    if len(runs) > 1 or 0 in runs:
        raise InputError(f"samples are graded in different numbers of runs, {sorted(runs)}: finish the grading")
    by_sample = [list(map(_valid, grades[name]["score"])) for name in samples]
    totals = [percent([grade or 0.0 for grade in run]) for run in zip(*by_sample, strict=True)]
    means = [fmean(grade or 0.0 for grade in sample) for sample in by_sample]
    needed = [sorted(sample["capability"], key=_rank) for sample in samples.values()]
    pairs = [(name, mean) for names, mean in zip(needed, means, strict=True) for name in names]
    details = {
        "runs": totals,
        "std": pstdev(totals),
        "by_capability": percent_by([name for name, _ in pairs], [mean for _, mean in pairs]),
        "by_combination": percent_by(map(",".join, needed), means),
    }
    unread = sum(None in sample for sample in by_sample)
    counts, scores = (len(means), 0, unread), scores_of(samples, means)
    return Result("mmvet", "GPT-4 score", fmean(totals), *counts, percent_interval(means), details, scores)


def narrow(given: Given) -> Given:
    """The samples that were graded."""
    return replace(given, annotations=[only(samples, given.answers) for samples in given.annotations])


def _valid(grade: Any) -> float | None:
    is_number = isinstance(grade, (int, float)) and not isinstance(grade, bool)
    return float(grade) if is_number and 0 <= grade <= 1 else None


def _rank(capability: str) -> tuple[int, str]:
    return (CAPABILITIES.index(capability) if capability in CAPABILITIES else len(CAPABILITIES)), capability


def report(result: Result) -> str:
    """The total, with its deviation over runs, then every capability and combination."""
    details = result.details
    spread = f" (deviation over {len(details['runs'])} runs: {details['std']:.1f})" if len(details["runs"]) > 1 else ""
    lines = [f"Total: {result.value:.1f}{spread}"]
    for name in ("by_capability", "by_combination"):
        lines += ["", f"Score {name.replace('_', ' ')}:"]
        lines += [f"{group}: {entry['value']:.1f} ({entry['count']} samples)" for group, entry in details[name].items()]
    return "\n".join(lines)


def submit(given: Given, path: Path) -> None:
    """Write the file that its online evaluator takes."""
    answers = by_question(given.answers).items()
    write_json(path, {f"v1_{qid}": answer["text"] for qid, answer in answers}, indent=2)


MMVET = Task(
    name="mmvet",
    title="MM-Vet",
    folder="mm-vet",
    asks=SENTENCES,
    splits=asked("llava-mm-vet", 218),
    images=Images("images", SOURCE),
    annotations=(DataFile("mm-vet.json", SOURCE, 218, {"capability": list[str]}, kind=dict, in_data=True),),
    judged="grades",
    server="https://huggingface.co/spaces/whyu/MM-Vet_Evaluator",
    upload=".json",
    verdicts=DataFile("grades.json", "the evaluator", keys={"score": list}, kind=dict),
    narrow=narrow,
    match=lambda questions, annotations, images: check_same_questions(
        (f"v1_{qid}" for qid in ids(questions)), annotations[0]
    ),
    score=score,
    report=report,
    submit=submit,
)
