"""Shapes: drawn scenes; accuracy, by type of question, with 95 % intervals."""

import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from llava.eval.tasks.base import SHORT, Given, Task
from llava.eval.tasks.files import ASKED, DataFile, Images, answer_lines
from llava.eval.tasks.matching import check_same_questions, ids
from llava.eval.tasks.scores import Result, percent, wilson_interval
from llava.records import InputError, check_record
from llava.shapes import checkpoint_path

MEASURED = dict.fromkeys(("visual_tokens", "latency_ms"), (int, float))
LABEL_KEYS = {"question_id": (int, str), "answer": str, "category": str}


def normalize(text: str) -> str:
    """Lower-case, without surrounding space and trailing periods."""
    return text.strip().rstrip(".").strip().lower()


def is_correct(answers: Sequence[dict[str, Any]], labels: Sequence[dict[str, Any]]) -> list[bool]:
    """Compare answers and labels position by position.

    Raises:
        InputError: another number of answers than of labels, or another question at some position.
    """
    if len(answers) != len(labels):
        raise InputError(f"{len(answers)} answers to {len(labels)} labels: other questions, or an unfinished run")
    for position, (answer, label) in enumerate(zip(answers, labels, strict=True), 1):
        if str(answer["question_id"]) != str(label["question_id"]):
            raise InputError(
                f"answer {position} is to question {answer['question_id']!r}, its label is for {label['question_id']!r}"
            )
    return [normalize(a["text"]) == normalize(b["answer"]) for a, b in zip(answers, labels, strict=True)]


def score(given: Given) -> Result:
    """Accuracy over all questions and, in ``details``, by type, with visual tokens and speed as recorded.

    Raises:
        InputError: answers that do not belong to the labels.
    """
    answers, (labels,) = given.answers, given.annotations
    correct = is_correct(answers, labels)
    by_type = {}
    for category in sorted({label["category"] for label in labels}):
        hits = [hit for hit, label in zip(correct, labels, strict=True) if label["category"] == category]
        low, high = wilson_interval(sum(hits), len(hits))
        by_type[category] = {"value": percent(hits), "count": len(hits), "ci95": [100 * low, 100 * high]}
    latency_ms = _mean_of(answers, "latency_ms")
    details = {
        "by_type": by_type,
        "visual_tokens": _mean_of(answers, "visual_tokens"),
        "images_per_second": 1000 / latency_ms if latency_ms else None,
    }
    unread = sum(not normalize(answer["text"]) for answer in answers)
    return Result.of_scores("shapes", "accuracy", correct, answers, unread, details, ids(labels))


def _mean_of(answers: Sequence[dict[str, Any]], key: str) -> float | None:
    values = [answer["metadata"][key] for answer in answers if key in answer["metadata"]]
    return statistics.fmean(values) if values else None


def report(result: Result) -> str:
    """The result as a table for the terminal."""
    rows = [(name, *row.values()) for name, row in result.details["by_type"].items()]
    rows.append(("all", result.value, result.count, result.ci95))
    lines = [f"{'type':<10}{'questions':>10}{'accuracy':>10}   95 % interval"]
    lines += [f"{name:<10}{n:>10}{value:>9.2f}%   {low:.1f} to {high:.1f}" for name, value, n, (low, high) in rows]
    lines.append(f"missing: {result.missing}, unparsable: {result.unparsable}")
    if (tokens := result.details["visual_tokens"]) is not None:
        lines.append(f"visual tokens kept: {tokens:.1f}")
    if (speed := result.details["images_per_second"]) is not None:
        lines.append(f"images per second: {speed:.1f}")
    return "\n".join(lines)


def _check(answers: Sequence[dict[str, Any]], file: str) -> None:
    for number, answer in enumerate(answers, 1):
        check_record(answer["metadata"], f"{file}, answer {number}, metadata", {}, MEASURED)


DRAWN = {"in_data": True, "made_from": ""}


def _draw(folder: Path, data: Path) -> None:
    """Draw the benchmark into the folder of data."""
    from llava.shapes.benchmark import write_benchmark  # names of benchmarks are looked up without drawing

    write_benchmark(data, split="test", num_questions=1000, seed=0)


SHAPES = Task(
    name="shapes",
    title="shapes",
    folder="shapes",
    asks=SHORT,
    splits={"shapes_test": DataFile("shapes_test.jsonl", "a run draws it", None, ASKED, **DRAWN)},
    images=Images("images", "a run draws them"),
    annotations=(DataFile("shapes_test_labels.jsonl", "a run draws it", None, LABEL_KEYS, **DRAWN),),
    answers=replace(answer_lines(metadata=dict), check=_check),
    match=lambda questions, annotations, images: check_same_questions(ids(questions), ids(annotations[0])),
    score=score,
    report=report,
    references=lambda given: {str(label["question_id"]): label["answer"] for label in given.annotations[0]},
    make=_draw,
    checkpoint=checkpoint_path(),
)
