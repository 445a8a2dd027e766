"""Score answers to Q-Bench's dev split, English or Chinese: multiple-choice questions about image quality.

Q-Bench: https://arxiv.org/abs/2309.14181. The test split's answers are with its organisers.
"""

import argparse
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava.asking.prompts import qbench_query
from llava.eval.tasks.base import DataFile, Form, Images, Sample, Task
from llava.eval.tasks.choices import chosen_option
from llava.eval.tasks.matching import (
    breakdown,
    check_same_questions,
    is_missing,
    naming_files,
    percent,
    percent_by,
    percent_interval,
    publish,
    refuse_repeated,
    scorer_parser,
    tell_losses,
)
from llava.eval.tasks.scores import Result
from llava.records import InputError, check_record, local_path, read_json, read_jsonl

SOURCE = "https://github.com/Q-Future/Q-Bench"
ANSWER_KEYS = {"img_path": str, "question": str, "response": str}
OPTIONAL_KEYS = {"metadata": (dict, type(None))}
ANNOTATION_KEYS = {"img_path": str, "question": str, "candidates": list[str], "correct_ans": str}


def score(answers: Sequence[dict[str, Any]], annotations: Sequence[dict[str, Any]], lang: str = "en") -> Result:
    """Share of answers that mean the right candidate, by its letter or its text.

    Args:
        annotations: ``llvisionqa_dev.json``; answers are matched by image and question.
        lang: ``en`` or ``zh``; names the benchmark.

    Raises:
        InputError: answers that do not belong to the annotations.
    """
    refuse_repeated(map(_key, annotations), "question")
    check_same_questions(map(_key, answers), map(_key, annotations))
    annotation_of = {_key(annotation): annotation for annotation in annotations}
    asked = [annotation_of[_key(answer)] for answer in answers]
    chosen = [_choice(answer, annotation) for answer, annotation in zip(answers, asked, strict=True)]
    correct = [choice == annotation["correct_ans"] for choice, annotation in zip(chosen, asked, strict=True)]
    missing = sum(map(is_missing, answers))
    return Result(
        benchmark="qbench_zh" if lang == "zh" else "qbench",
        metric="accuracy",
        value=percent(correct),
        count=len(correct),
        missing=missing,
        unparsable=chosen.count(None) - missing,
        ci95=percent_interval(correct),
        details={
            f"by_{name}": percent_by([str(annotation[name]) for annotation in asked], correct)
            for name in ("type", "concern")
            if all(name in annotation for annotation in asked)
        },
    )


def _key(entry: dict[str, Any]) -> tuple[str, str]:
    return entry["img_path"], entry["question"]


def _choice(answer: dict[str, Any], annotation: dict[str, Any]) -> str | None:
    """The text of the candidate that an answer means."""
    options = dict(zip(string.ascii_uppercase, annotation["candidates"], strict=False))
    letter = chosen_option(answer["response"], options)
    return options.get(letter) if letter else None


def report(result: Result) -> str:
    """Accuracy, then one line for every type and concern."""
    lines = [f"Accuracy: {result.value:.2f}% ({result.count} questions)"]
    for name, groups in result.details.items():
        lines += ["", f"Accuracy {name.replace('_', ' ')}:", *breakdown(groups)]
    return "\n".join(lines)


def read_annotations(path: str) -> list[dict[str, Any]]:
    """Q-Bench's question file, checked.

    Raises:
        InputError: a record of another form, without an answer (a test split), or with one that is no candidate.
    """
    annotations = read_json(path, list)
    for number, annotation in enumerate(annotations, 1):
        where = f"{path}, question {number}"
        check_record(annotation, where, ANNOTATION_KEYS)
        if annotation["correct_ans"] not in annotation["candidates"]:
            raise InputError(f"{where}: {annotation['correct_ans']!r} is none of {annotation['candidates']}")
    if not annotations:
        raise InputError(f"{path}: no questions")
    return annotations


def eval_answers(args: argparse.Namespace) -> None:
    """Score ``args.result_file``."""
    annotations = read_annotations(args.annotation_file)
    answers = tell_losses(args.result_file, read_jsonl(args.result_file, ANSWER_KEYS, OPTIONAL_KEYS))
    with naming_files(result_file=args.result_file, annotation_file=args.annotation_file):
        result = score(answers, annotations, args.lang)
    publish(result, report(result), args.output)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = scorer_parser("qbench", __doc__, "llvisionqa_dev.json")
    parser.add_argument("--lang", choices=["en", "zh"], default="en", help="names the benchmark in the result")
    return parser


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
    generation={"max_new_tokens": 1024, "temperature": 0.0},
    crop=True,
)


def _task(name: str, title: str, lang: str, **files: str) -> Task:
    return Task(
        name=name,
        title=title,
        folder="qbench",
        asks=QUALITY,
        asking={"lang": lang},
        splits={split: DataFile(file, SOURCE, None, KEYS) for split, file in files.items()},
        images=Images("images_llvisionqa", SOURCE, key="img_path"),
        scored=lambda split: split.endswith("dev"),
        server="the organisers, https://github.com/Q-Future/Q-Bench",
    )


QBENCH = _task("qbench", "Q-Bench", "en", dev="llvisionqa_dev.json", test="llvisionqa_test.json")
QBENCH_ZH = _task("qbench_zh", "Q-Bench-CN", "zh", zh_dev="质衡-问答-验证集.json", zh_test="质衡-问答-测试集.json")
