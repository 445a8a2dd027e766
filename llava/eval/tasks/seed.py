"""Score answers to SEED-Bench: exact option letters, by type of question and for images and videos.

SEED-Bench: https://arxiv.org/abs/2307.16125.
"""

import argparse
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.eval.tasks.base import SHORT, DataFile, Images, Task, asked
from llava.eval.tasks.matching import (
    by_question,
    check_same_questions,
    is_missing,
    naming_files,
    percent,
    percent_by,
    percent_interval,
    publish,
    read_answers,
    scorer_parser,
)
from llava.eval.tasks.scores import Result
from llava.records import InputError, check_record, read_json

logger = logging.getLogger(__name__)

QUESTION_KEYS = {"question_id": (int, str), "question_type_id": int, "data_type": str, "answer": str}
LETTERS = ("A", "B", "C", "D")


def question_key(question_id: int | str) -> str:
    """What ids are matched by: numbers whether written as numbers or as text, ids of videos as they are."""
    text = str(question_id)
    return (text.lstrip("0") or "0") if text.isascii() and text.isdecimal() else text


def match_answers(answers: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Answers by ``question_key``.

    Raises:
        InputError: two answers to one question.
    """
    return by_question(answer | {"question_id": question_key(answer["question_id"])} for answer in answers)


def score(answers: Sequence[dict[str, Any]], annotation: Mapping[str, Any]) -> Result:
    """Share of questions whose answer is exactly the right letter.

    Args:
        annotation: ``SEED-Bench.json``; a data type (``image``, ``video``) none of whose questions is answered is left
            out and listed in ``details``.

    Raises:
        InputError: questions of an answered data type without an answer, or answers to other questions.
    """
    answered = match_answers(answers)
    data_type_of = {question_key(q["question_id"]): q["data_type"] for q in annotation["questions"]}
    data_types = {data_type_of[key] for key in answered if key in data_type_of}
    questions = [q for q in annotation["questions"] if q["data_type"] in data_types]
    check_same_questions(answered, (question_key(q["question_id"]) for q in questions))
    given = [answered[question_key(q["question_id"])] for q in questions]
    correct = [answer["text"] == q["answer"] for answer, q in zip(given, questions, strict=True)]
    type_names = {number: name for name, number in annotation["question_type"].items()}
    by_number = percent_by((q["question_type_id"] for q in questions), correct)
    missing = sum(map(is_missing, answers))
    return Result(
        benchmark="seed",
        metric="accuracy" if len(data_types) > 1 else f"{'/'.join(data_types)} accuracy",
        value=percent(correct),
        count=len(correct),
        missing=missing,
        unparsable=sum(answer["text"] not in LETTERS for answer in given) - missing,
        ci95=percent_interval(correct),
        details={
            "by_data_type": percent_by((q["data_type"] for q in questions), correct),
            "by_question_type": {type_names[int(number)]: group for number, group in by_number.items()},
            "left_out": sorted(set(data_type_of.values()) - data_types),
        },
    )


def report(result: Result) -> str:
    """The lines that LLaVA prints: every type of question, all, images and videos."""
    details = result.details
    lines = [f"{name}: {group['value']:.2f}%" for name, group in details["by_question_type"].items()]
    lines.append(f"Total accuracy: {result.value:.2f}%")
    lines += [f"{name} accuracy: {group['value']:.2f}%" for name, group in details["by_data_type"].items()]
    return "\n".join(lines)


def read_annotation(path: str) -> dict[str, Any]:
    """``SEED-Bench.json``, checked."""
    annotation = check_record(read_json(path, dict), path, {"question_type": dict, "questions": list})
    check_record(annotation["question_type"], f"{path}, question_type", dict.fromkeys(annotation["question_type"], int))
    types = set(annotation["question_type"].values())
    for number, question in enumerate(annotation["questions"], 1):
        check_record(question, f"{path}, question {number}", QUESTION_KEYS)
        if question["question_type_id"] not in types:
            raise InputError(f"{path}, question {number}: no name for its type {question['question_type_id']}")
    return annotation


def eval_files(result_file: str, annotation_file: str, output: str | None = None) -> None:
    """Score the answers in ``result_file``, print the accuracies and write the result to ``output`` if given."""
    annotation = read_annotation(annotation_file)
    answers = read_answers(result_file)
    with naming_files(result_file=result_file, annotation_file=annotation_file):
        result = score(answers, annotation)
    publish(result, report(result), output)
    if left_out := result.details["left_out"]:
        logger.warning("no answer to any question about a %s: left out of all accuracies", " or a ".join(left_out))


def eval_answers(args: argparse.Namespace) -> None:
    """Score ``args.result_file``."""
    eval_files(args.result_file, args.annotation_file, args.output)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    return scorer_parser("seed", __doc__, "SEED-Bench.json")


SOURCE = "https://huggingface.co/datasets/AILab-CVPR/SEED-Bench"


def match(questions: Sequence[dict[str, Any]], annotations: Sequence[Sequence[dict[str, Any]]], images: Path) -> None:
    """Raise InputError unless every annotated question is asked once."""
    given = (question_key(question["question_id"]) for question in questions)
    check_same_questions(given, (question_key(question["question_id"]) for question in annotations[0]))


SEED = Task(
    name="seed",
    title="SEED",
    folder="seed_bench",
    asks=SHORT,
    splits=asked("llava-seed-bench", 19242),
    images=Images(".", f"SEED-Bench-image.zip and the videos' frames (extract_video_frames.py of eval.zip), {SOURCE}"),
    annotations=(
        DataFile(
            "SEED-Bench.json",
            SOURCE,
            19242,
            {"question_id": (int, str), "answer": str},
            in_data=True,
            member="questions",
        ),
    ),
    match=match,
)
