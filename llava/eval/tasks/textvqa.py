"""TextVQA, validation: questions about text in images, by soft accuracy. https://arxiv.org/abs/1904.08920."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from llava.eval.tasks.base import SHORT, Given, Task, only
from llava.eval.tasks.files import DataFile, Images, answer_lines, asked
from llava.eval.tasks.matching import check_same_questions, ids
from llava.eval.tasks.scores import Result
from llava.eval.tasks.soft_accuracy import TextVQAAccuracyEvaluator, most_given
from llava.records import InputError

SOURCE = "https://dl.fbaipublicfiles.com/textvqa/"
FILE = "TextVQA_0.5.1_val.json"
KEYS = {"image_id": (int, str), "question": str, "answers": list[str]}


def question_of(prompt: str) -> str:
    """The question in a prompt: without the instruction in its last line and without the OCR tokens.

    Raises:
        InputError: a prompt of another form.
    """
    if prompt.startswith("OCR tokens: "):
        if found := re.search(r"Question: (.*?) Short answer:", prompt, re.DOTALL):
            return found[1]
    else:
        lines = [line for line in prompt.split("\n")[:-1] if not line.startswith("Reference OCR token: ")]
        if lines:
            return "\n".join(lines)
    raise InputError(f"no question found in the prompt {prompt!r}: expected it above an instruction in a last line")


def score(given: Given) -> Result:
    """Mean soft accuracy; answers are matched by image (``question_id``) and lower-cased question.

    Raises:
        InputError: answers that do not belong to the annotations.
    """
    answers, (annotations,) = given.answers, given.annotations
    references = {_key(entry["image_id"], entry["question"]): entry["answers"] for entry in annotations}
    keys = [_key(answer["question_id"], question_of(answer["prompt"])) for answer in answers]
    check_same_questions(keys, (_key(entry["image_id"], entry["question"]) for entry in annotations))
    evaluator = TextVQAAccuracyEvaluator()
    scores = [evaluator.score(answer["text"], references[key]) for answer, key in zip(answers, keys, strict=True)]
    unread = sum(not answer["text"].strip() for answer in answers)
    return Result.of_scores("textvqa", "soft accuracy", scores, answers, unread, questions=keys)


def narrow(given: Given) -> Given:
    """What belongs to the answers by image and question."""
    keys = [_key(answer["question_id"], question_of(answer["prompt"])) for answer in given.answers]
    (annotations,) = given.annotations
    found = only(annotations, keys, lambda entry: _key(entry["image_id"], entry["question"]))
    return replace(given, annotations=[found])


def _key(image_id: int | str, question: str) -> tuple[str, str]:
    return str(image_id), question.lower()


def report(result: Result) -> str:
    """The lines that LLaVA prints below the name of the answers."""
    return f"Samples: {result.count}\nAccuracy: {result.value:.2f}%\n"


def _check(annotations: Sequence[Mapping[str, Any]], file: str) -> None:
    for number, entry in enumerate(annotations, 1):
        if not entry["answers"]:
            raise InputError(f"{file}, question {number}: no reference answers, as in a test split")


TEXTVQA = Task(
    name="textvqa",
    title="TextVQA",
    folder="textvqa",
    asks=SHORT,
    splits=asked("llava_textvqa_val_v051_ocr", 5000),
    images=Images("train_images", f"{SOURCE}images/train_val_images.zip", gigabytes=6.6),
    annotations=(DataFile(FILE, f"{SOURCE}data/{FILE}", 5000, KEYS, in_data=True, member="data", check=_check),),
    answers=answer_lines(prompt=str),
    narrow=narrow,
    match=lambda questions, annotations, images: check_same_questions(ids(questions), ids(annotations[0], "image_id")),
    score=score,
    report=report,
    name_of=lambda answer: _key(answer["question_id"], question_of(answer["prompt"])),
    references=lambda given: {
        _key(entry["image_id"], entry["question"]): most_given(entry["answers"]) for entry in given.annotations[0]
    },
)
