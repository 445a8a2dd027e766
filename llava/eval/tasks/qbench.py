"""Q-Bench, English and Chinese: multiple choice about the quality of images. https://arxiv.org/abs/2309.14181.

The test split's answers are with its organisers.
"""

import string
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any

from llava.asking.prompts import qbench_query
from llava.eval.tasks.base import Form, Given, Sample, Task, only
from llava.eval.tasks.choices import chosen_option
from llava.eval.tasks.files import AnswersFile, DataFile, Images
from llava.eval.tasks.matching import check_same_questions, refuse_repeated
from llava.eval.tasks.scores import Result, breakdowns, percent_by
from llava.records import InputError, local_path

SOURCE = "https://github.com/Q-Future/Q-Bench"
ANSWERS = AnswersFile(
    "answers.jsonl",
    "model_vqa_qbench",
    keys={"img_path": str, "question": str, "response": str},
    optional={"metadata": (dict, NoneType)},
)


def score(given: Given, benchmark: str = "qbench") -> Result:
    """Share of answers that mean the right candidate, by its letter or its text; matched by image and question.

    Raises:
        InputError: answers that do not belong to the annotations.
    """
    answers, (annotations,) = given.answers, given.annotations
    refuse_repeated(map(_key, annotations), "question")
    check_same_questions(map(_key, answers), map(_key, annotations))
    annotation_of = {_key(annotation): annotation for annotation in annotations}
    asked = [annotation_of[_key(answer)] for answer in answers]
    chosen = [_choice(answer, annotation) for answer, annotation in zip(answers, asked, strict=True)]
    correct = [choice == annotation["correct_ans"] for choice, annotation in zip(chosen, asked, strict=True)]
    details = {
        f"by_{name}": percent_by([str(annotation[name]) for annotation in asked], correct)
        for name in ("type", "concern")
        if all(name in annotation for annotation in asked)
    }
    unread = chosen.count(None)
    return Result.of_scores(benchmark, "accuracy", correct, answers, unread, details, map(_key, answers))


def narrow(given: Given) -> Given:
    """What belongs to the answers by image and question."""
    return replace(given, annotations=[only(records, map(_key, given.answers), _key) for records in given.annotations])


def _key(entry: Mapping[str, Any]) -> tuple[str, str]:
    return entry["img_path"], entry["question"]


def _choice(answer: dict[str, Any], annotation: dict[str, Any]) -> str | None:
    """The text of the candidate that an answer means."""
    options = dict(zip(string.ascii_uppercase, annotation["candidates"], strict=False))
    letter = chosen_option(answer["response"], options)
    return options.get(letter) if letter else None


def report(result: Result) -> str:
    """Accuracy, then one line for every type and concern."""
    lines = breakdowns("Accuracy", result.details)
    return "\n".join([f"Accuracy: {result.value:.2f}% ({result.count} questions)", *lines])


def _check(annotations: Sequence[Mapping[str, Any]], file: str) -> None:
    for number, annotation in enumerate(annotations, 1):
        if annotation["correct_ans"] not in annotation["candidates"]:
            fault = f"{annotation['correct_ans']!r} is none of {annotation['candidates']}"
            raise InputError(f"{file}, question {number}: {fault}")


KEYS = {"img_path": str, "question": str, "candidates": list}
CHOOSE = {"en": "\nChoose between one of the options as follows:\n", "zh": "\n在下列选项中选择一个:\n"}


def qbench_samples(questions: Sequence[dict[str, Any]], image_folder: str | Path, lang: str = "en") -> list[Sample]:
    """Questions as they are asked.

    Args:
        questions: from ``QUALITY.read``.
        image_folder: what ``img_path`` is relative to.
        lang: ``en`` or ``zh``.
    """
    folder = local_path(image_folder)
    samples = []
    for question in questions:
        lettered = zip(string.ascii_uppercase, question["candidates"], strict=False)
        candidates = "".join(f"{letter}. {candidate}\n" for letter, candidate in lettered)
        prompt = f"{question['question']}{CHOOSE[lang]}{candidates}"
        query, image = qbench_query(question["question"], candidates), folder / question["img_path"]
        lost = {"options_dropped": max(0, len(question["candidates"]) - len(string.ascii_uppercase))}
        samples.append(Sample(question["img_path"], prompt, query, image, question, "response", lost))
    return samples


QUALITY = Form(
    "model_vqa_qbench",
    DataFile(".json", SOURCE, keys=KEYS).read,
    qbench_samples,
    question_flag="--questions-file",
    template="llava_v1",  # as LLaVA's published numbers
    generation={"temperature": 0.0},
    options=("lang",),
    crop=True,
)


def _task(name: str, title: str, lang: str, **files: str) -> Task:
    labelled = KEYS | {"candidates": list[str], "correct_ans": str}
    return Task(
        name=name,
        title=title,
        folder="qbench",
        asks=QUALITY,
        asking={"lang": lang},
        splits={split: DataFile(file, SOURCE, None, KEYS) for split, file in files.items()},
        images=Images("images_llvisionqa", SOURCE, key="img_path"),
        labels=(DataFile(next(iter(files.values())), SOURCE, keys=labelled, check=_check),),
        answers=ANSWERS,
        narrow=narrow,
        score=partial(score, benchmark=name),
        report=report,
        name_of=_key,
        references=lambda given: {_key(entry): entry["correct_ans"] for entry in given.annotations[0]},
        scored=lambda split: split.endswith("dev"),
        server="the organisers, https://github.com/Q-Future/Q-Bench",
    )


QBENCH = _task("qbench", "Q-Bench", "en", dev="llvisionqa_dev.json", test="llvisionqa_test.json")
QBENCH_ZH = _task("qbench_zh", "Q-Bench-CN", "zh", zh_dev="质衡-问答-验证集.json", zh_test="质衡-问答-测试集.json")
