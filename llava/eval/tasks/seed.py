"""SEED-Bench: multiple choice about images and frames of videos. https://arxiv.org/abs/2307.16125."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from llava.eval.tasks.base import SHORT, Given, Task, only
from llava.eval.tasks.files import DataFile, Images, asked
from llava.eval.tasks.matching import by_question, check_same_questions, ids
from llava.eval.tasks.scores import Result, percent_by
from llava.records import InputError, check_record, replace_file

logger = logging.getLogger(__name__)

SOURCE = "https://huggingface.co/datasets/AILab-CVPR/SEED-Bench"
QUESTION_KEYS = {"question_id": (int, str), "question_type_id": int, "data_type": str, "answer": str}
LETTERS = ("A", "B", "C", "D")


def question_key(question_id: int | str) -> str:
    """What ids are matched by: numbers whether written as numbers or as text, ids of videos as they are."""
    text = str(question_id)
    return (text.lstrip("0") or "0") if text.isascii() and text.isdecimal() else text


def _answered(answers: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return by_question(answer | {"question_id": question_key(answer["question_id"])} for answer in answers)


def score(given: Given) -> Result:
    """Share of questions whose answer is exactly the right letter.

    A data type (``image``, ``video``) none of whose questions is answered is left out and listed in ``details``.

    Raises:
        InputError: questions of an answered data type without an answer, or answers to other questions.
    """
    answered, (annotation,) = _answered(given.answers), given.annotations
    data_type_of = {question_key(q["question_id"]): q["data_type"] for q in annotation["questions"]}
    data_types = {data_type_of[key] for key in answered if key in data_type_of}
    questions = [q for q in annotation["questions"] if q["data_type"] in data_types]
    check_same_questions(answered, (question_key(q["question_id"]) for q in questions))
    answers = [answered[question_key(q["question_id"])] for q in questions]
    correct = [answer["text"] == q["answer"] for answer, q in zip(answers, questions, strict=True)]
    type_names = {number: name for name, number in annotation["question_type"].items()}
    by_number = percent_by((q["question_type_id"] for q in questions), correct)
    details = {
        "by_data_type": percent_by((q["data_type"] for q in questions), correct),
        "by_question_type": {type_names[int(number)]: group for number, group in by_number.items()},
        "left_out": sorted(set(data_type_of.values()) - data_types),
    }
    if details["left_out"]:
        kinds = " or a ".join(details["left_out"])
        logger.warning("no answer to any question about a %s: left out of all accuracies", kinds)
    metric = "accuracy" if len(data_types) > 1 else f"{'/'.join(data_types)} accuracy"
    unread = sum(answer["text"] not in LETTERS for answer in answers)
    return Result.of_scores("seed", metric, correct, answers, unread, details, ids(questions))


def narrow(given: Given) -> Given:
    """What belongs to the answers, numbers being matched however they are written."""
    (annotation,) = given.annotations
    found = only(annotation["questions"], _answered(given.answers), lambda each: question_key(each["question_id"]))
    return replace(given, annotations=[annotation | {"questions": found}])


def report(result: Result) -> str:
    """The lines that LLaVA prints: every type of question, all, images and videos."""
    details = result.details
    lines = [f"{name}: {group['value']:.2f}%" for name, group in details["by_question_type"].items()]
    lines.append(f"Total accuracy: {result.value:.2f}%")
    lines += [f"{name} accuracy: {group['value']:.2f}%" for name, group in details["by_data_type"].items()]
    return "\n".join(lines)


def _check(annotation: Mapping[str, Any], file: str) -> None:
    check_record(annotation, file, {"question_type": dict, "questions": list})
    check_record(annotation["question_type"], f"{file}, question_type", dict.fromkeys(annotation["question_type"], int))
    types = set(annotation["question_type"].values())
    for number, question in enumerate(annotation["questions"], 1):
        check_record(question, f"{file}, question {number}", QUESTION_KEYS)
        if question["question_type_id"] not in types:
            raise InputError(f"{file}, question {number}: no name for its type {question['question_type_id']}")


def submit(given: Given, path: Path) -> None:
    """Write a line ``{question_id, prediction}`` for every annotated question, in the form of the leaderboard.

    Raises:
        InputError: a question without an answer.
    """
    answered, (annotation,) = _answered(given.answers), given.annotations
    wanted = [question["question_id"] for question in annotation["questions"]]
    if lacking := [qid for qid in wanted if question_key(qid) not in answered]:
        fault = f"{len(lacking)} of {len(wanted)} questions have no answer, such as {lacking[0]!r}"
        raise InputError(f"{fault}, but a submission needs all")
    lines = [{"question_id": qid, "prediction": answered[question_key(qid)]["text"]} for qid in wanted]
    replace_file(path, "".join(json.dumps(line) + "\n" for line in lines))


SEED = Task(
    name="seed",
    title="SEED",
    folder="seed_bench",
    asks=SHORT,
    splits=asked("llava-seed-bench", 19242),
    images=Images(".", f"SEED-Bench-image.zip and the videos' frames (extract_video_frames.py of eval.zip), {SOURCE}"),
    annotations=(DataFile("SEED-Bench.json", SOURCE, 19242, QUESTION_KEYS, in_data=True, member="questions"),),
    labels=(DataFile("SEED-Bench.json", SOURCE, kind=dict, check=_check, in_data=True),),
    upload=".jsonl",
    submit_reads=("annotations",),
    narrow=narrow,
    match=lambda questions, annotations, images: check_same_questions(
        map(question_key, ids(questions)), map(question_key, ids(annotations[0]))
    ),
    score=score,
    report=report,
    references=lambda given: {
        str(question["question_id"]): question["answer"] for question in given.annotations[0]["questions"]
    },
    submit=submit,
)
