"""VizWiz: questions by blind people about their photographs. https://arxiv.org/abs/1802.08218."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from llava.eval.tasks.base import SHORT, Given, Task, only
from llava.eval.tasks.files import EVAL_ZIP, DataFile, Images, asked, write_json
from llava.eval.tasks.matching import by_question, check_same_questions, ids, refuse_repeated
from llava.eval.tasks.scores import Result
from llava.eval.tasks.soft_accuracy import NORMALIZE, OPTIONAL_KEYS, check_references, report, score_softly
from llava.records import InputError

SOURCE = "https://vizwiz.org/tasks-and-datasets/vqa"


def matched(given: Given) -> Sequence[dict[str, Any]]:
    """The annotation of every answer: by image with the question file, else by position, the question being checked.

    VizWiz has one question per image and no question ids.

    Raises:
        InputError: answers that do not belong to the annotations, or answers to other questions at some position.
    """
    answers, (annotations,) = given.answers, given.annotations
    if given.questions is not None:
        image_of = {qid: question["image"] for qid, question in by_question(given.questions, "asked").items()}
        check_same_questions(by_question(answers), image_of)
        refuse_repeated(image_of.values(), "image")
        check_same_questions(image_of.values(), (annotation["image"] for annotation in annotations))
        annotation_of = {annotation["image"]: annotation for annotation in annotations}
        return [annotation_of[image_of[str(answer["question_id"])]] for answer in answers]
    if len(answers) != len(annotations):
        raise InputError(f"{len(answers)} answers to {len(annotations)} annotated questions")
    for position, (answer, annotation) in enumerate(zip(answers, annotations, strict=True), 1):
        if annotation["question"].strip() not in answer.get("prompt", ""):
            raise InputError(
                f"answer {position} is not to the annotated question {annotation['question']!r}; "
                "where the order differs, give --question-file"
            )
    return annotations


def score(given: Given) -> Result:
    """Mean soft accuracy over the validation questions."""
    return score_softly("vizwiz", given.answers, matched(given))


def submit(given: Given, path: Path) -> None:
    """Write ``[{image, answer}]`` in the order of the questions, with normalised answers; all must be answered."""
    answers = by_question(given.answers)
    images = {str(question["question_id"]): question["image"] for question in given.questions}
    check_same_questions(answers, ids(given.questions))
    write_json(path, [{"image": image, "answer": NORMALIZE(answers[qid]["text"])} for qid, image in images.items()])


def narrow(given: Given) -> Given:
    """What belongs to the answers: by question and image, or else the annotations at the places of the answers."""
    (annotations,) = given.annotations
    if given.questions is None:
        return replace(given, annotations=[annotations[: len(given.answers)]])
    questions = only(given.questions, ids(given.answers))
    images = [question["image"] for question in questions]
    return replace(given, questions=questions, annotations=[only(annotations, images, lambda each: each["image"])])


VIZWIZ = Task(
    name="vizwiz",
    title="VizWiz",
    folder="vizwiz",
    asks=SHORT,
    splits=asked("llava_test", 8000),
    images=Images("test", f"test.zip at {SOURCE}"),
    labels=(
        DataFile(
            "val.json",
            SOURCE,
            keys={"image": str, "question": str, "answers": list},
            optional=OPTIONAL_KEYS,
            check=check_references,
        ),
    ),
    questions=DataFile("llava_test.jsonl", EVAL_ZIP, keys={"question_id": (int, str), "image": str}),
    score_takes=("questions",),
    submit_reads=("questions",),
    scored=lambda split: False,
    narrow=narrow,
    score=score,
    report=report,
    submit=submit,
    server="https://eval.ai/web/challenges/challenge-page/2185",
    upload=".json",
)
