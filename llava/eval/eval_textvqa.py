"""Score answers to TextVQA's validation questions: soft accuracy against ten references each.

TextVQA: https://arxiv.org/abs/1904.08920.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava.command import run_program
from llava.eval.m4c_evaluator import TextVQAAccuracyEvaluator
from llava.eval.tasks.matching import (
    add_output_arg,
    check_same_questions,
    is_missing,
    naming_files,
    percent,
    percent_interval,
    publish,
    read_answers,
)
from llava.eval.tasks.scores import Result
from llava.records import InputError, check_record, local_path, read_json

ANNOTATION_KEYS = {"image_id": (int, str), "question": str, "answers": list[str]}


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


def score(answers: Sequence[dict[str, Any]], annotations: Sequence[dict[str, Any]]) -> Result:
    """Mean soft accuracy; answers are matched by image (``question_id``) and lower-cased question.

    Args:
        annotations: ``data`` of ``TextVQA_0.5.1_val.json``.

    Raises:
        InputError: answers that do not belong to the annotations.
    """
    references = {_key(entry["image_id"], entry["question"]): entry["answers"] for entry in annotations}
    keys = [_key(answer["question_id"], question_of(answer["prompt"])) for answer in answers]
    check_same_questions(keys, (_key(entry["image_id"], entry["question"]) for entry in annotations))
    evaluator = TextVQAAccuracyEvaluator()
    scores = [evaluator.score(answer["text"], references[key]) for answer, key in zip(answers, keys, strict=True)]
    missing = sum(map(is_missing, answers))
    return Result(
        benchmark="textvqa",
        metric="soft accuracy",
        value=percent(scores),
        count=len(scores),
        missing=missing,
        unparsable=sum(not answer["text"].strip() for answer in answers) - missing,
        ci95=percent_interval(scores),
    )


def _key(image_id: int | str, question: str) -> tuple[str, str]:
    return str(image_id), question.lower()


def report(result: Result, name: str) -> str:
    """The lines that LLaVA prints, for an answers file called ``name``."""
    return f"{name}\nSamples: {result.count}\nAccuracy: {result.value:.2f}%\n"


def read_annotations(path: str) -> list[dict[str, Any]]:
    """The questions and references of ``TextVQA_0.5.1_val.json``, checked."""
    annotations = read_json(path, dict).get("data")
    if not isinstance(annotations, list) or not annotations:
        raise InputError(f"{path}: expected a list of questions under 'data'")
    for number, entry in enumerate(annotations, 1):
        check_record(entry, f"{path}, entry {number}", ANNOTATION_KEYS)
        if not entry["answers"]:
            raise InputError(f"{path}, entry {number}: no reference answers, as in a test split")
    return annotations


def eval_answers(args: argparse.Namespace) -> None:
    """Score ``args.result_file`` and every answers file in ``args.result_dir``."""
    files = [Path(args.result_file)] if args.result_file else []
    if args.result_dir:
        files += sorted(local_path(args.result_dir).glob("*.jsonl"))
    if not files:
        raise InputError("no answers: give --result-file, or a --result-dir that holds .jsonl files")
    if args.output and len(files) > 1:
        raise InputError(
            f"--output takes one result, not those of {len(files)} answers files: give --result-file alone"
        )
    annotations = read_annotations(args.annotation_file)
    for file in files:
        with naming_files(result_file=file, annotation_file=args.annotation_file):
            result = score(read_answers(file, "prompt"), annotations)
        publish(result, report(result, file.stem), args.output)


def build_parser() -> argparse.ArgumentParser:
    """The command line, with LLaVA's flags."""
    parser = argparse.ArgumentParser(prog="python -m llava.eval.eval_textvqa", description=__doc__)
    parser.add_argument("--annotation-file", required=True, help="TextVQA_0.5.1_val.json")
    parser.add_argument("--result-file", help="answers, one JSON object per line")
    parser.add_argument("--result-dir", help="score every .jsonl file in this folder")
    add_output_arg(parser)
    return parser


if __name__ == "__main__":
    run_program(build_parser(), eval_answers)
