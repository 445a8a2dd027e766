"""Score answers to the shapes benchmark: accuracy, by question type, with 95 % intervals."""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava.eval.tasks.base import ASKED, SHORT, DataFile, Images, Task
from llava.eval.tasks.matching import check_same_questions, naming_files, percent, tell_losses
from llava.eval.tasks.scores import Result, bootstrap_interval, wilson_interval, write_result
from llava.outputs import nothing_left
from llava.records import InputError, check_output, check_record, read_jsonl
from llava.shapes import checkpoint_path

MEASURED = dict.fromkeys(("visual_tokens", "latency_ms"), (int, float))
LABEL_KEYS = {"question_id": (int, str), "answer": str, "category": str}
ANSWER_KEYS = {"question_id": (int, str), "text": str, "metadata": dict}


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


def score(answers: Sequence[dict[str, Any]], labels: Sequence[dict[str, Any]]) -> Result:
    """Accuracy over all questions and, in ``details``, by type, with visual tokens and speed as recorded.

    Raises:
        InputError: answers that do not belong to the labels.
    """
    correct = is_correct(answers, labels)
    missing = sum("error" in answer["metadata"] for answer in answers)
    by_type = {}
    for category in sorted({label["category"] for label in labels}):
        hits = [hit for hit, label in zip(correct, labels, strict=True) if label["category"] == category]
        low, high = wilson_interval(sum(hits), len(hits))
        by_type[category] = {"value": percent(hits), "count": len(hits), "ci95": [100 * low, 100 * high]}
    low, high = bootstrap_interval(correct)
    latency_ms = _mean_of(answers, "latency_ms")
    return Result(
        benchmark="shapes",
        metric="accuracy",
        value=percent(correct),
        count=len(correct),
        missing=missing,
        unparsable=sum(not normalize(answer["text"]) for answer in answers) - missing,
        ci95=(100 * low, 100 * high),
        details={
            "by_type": by_type,
            "visual_tokens": _mean_of(answers, "visual_tokens"),
            "images_per_second": 1000 / latency_ms if latency_ms else None,
        },
    )


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


def eval_answers(args: argparse.Namespace) -> None:
    """Score ``args.result_file`` against ``args.annotation_file`` and print the table."""
    with nothing_left(*filter(None, [args.output])):
        if args.output:
            check_output(args.output)
        result = _score_files(args)
    print(report(result))
    if args.output:
        write_result(result, args.output)


def _score_files(args: argparse.Namespace) -> Result:
    answers = tell_losses(args.result_file, read_jsonl(args.result_file, ANSWER_KEYS))
    for number, answer in enumerate(answers, 1):
        check_record(answer["metadata"], f"{args.result_file}, answer {number}, metadata", {}, MEASURED)
    with naming_files(result_file=args.result_file, annotation_file=args.annotation_file):
        return score(answers, read_jsonl(args.annotation_file, LABEL_KEYS))


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m llava.eval score shapes", description=__doc__)
    parser.add_argument("--annotation-file", required=True, help="shapes_<split>_labels.jsonl")
    parser.add_argument("--result-file", required=True, help="answers of llava.eval.model_vqa_loader")
    parser.add_argument("--output", help="write the result here as JSON")
    return parser


DRAWN = {"in_data": True, "made_from": ""}


def match(questions: Sequence[dict[str, Any]], annotations: Sequence[Sequence[dict[str, Any]]], images: Path) -> None:
    """Raise InputError unless every label is of a question."""
    given, wanted = ([str(record["question_id"]) for record in records] for records in (questions, annotations[0]))
    check_same_questions(given, wanted)


SHAPES = Task(
    name="shapes",
    title="shapes",
    folder="shapes",
    asks=SHORT,
    splits={"shapes_test": DataFile("shapes_test.jsonl", "the script draws it", None, ASKED, **DRAWN)},
    images=Images("images", "the script draws them"),
    annotations=(
        DataFile(
            "shapes_test_labels.jsonl",
            "the script draws it",
            None,
            {"question_id": (int, str), "answer": str},
            **DRAWN,
        ),
    ),
    match=match,
    checkpoint=checkpoint_path(),
)
