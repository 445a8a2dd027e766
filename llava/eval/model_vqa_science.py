"""Ask a LLaVA model the questions of ScienceQA, with an image or without.

The question file is one JSON array of objects with ``id``, ``conversations`` and, where there is an image, ``image``
(relative to ``--image-folder``). A recorded prompt begins with ``<image>`` where the question has an image.
"""

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava.asking.losses import without_placeholders
from llava.asking.queries import OPTION_LETTER, science_query
from llava.command import run_program
from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.eval.ask.dataset import Sample
from llava.eval.ask.program import evaluate, prepare, question_parser
from llava.eval.tasks.matching import read_json
from llava.records import InputError, check_record, get_chunk, local_path, split_list

__all__ = ["eval_model", "get_chunk", "split_list"]

QUESTION_KEYS = {"id": (int, str), "conversations": list}


def read_questions(path: str | Path) -> list[dict[str, Any]]:
    """The question file, checked.

    Raises:
        InputError: no such file, no questions in it, or one of another form; names file and question.
    """
    questions = read_json(path, list)
    for number, question in enumerate(questions, 1):
        where = f"{path}, question {number}"
        check_record(question, where, QUESTION_KEYS, {"image": str})
        check_record(question["conversations"][0] if question["conversations"] else None, where, {"value": str})
    if not questions:
        raise InputError(f"{path}: no questions")
    return questions


def science_samples(
    questions: Sequence[dict[str, Any]], image_folder: str | Path, single_pred_prompt: bool = False
) -> list[Sample]:
    """Questions as they are asked.

    Args:
        questions: from ``read_questions``.
        image_folder: what their images are relative to.
        single_pred_prompt: ask for the option's letter alone.
    """
    folder = local_path(image_folder)
    samples = []
    for question in questions:
        text, placeholders = without_placeholders(question["conversations"][0]["value"])
        text = text.strip()
        prompt = text + OPTION_LETTER if single_pred_prompt else text
        image = folder / question["image"] if "image" in question else None
        recorded = f"{DEFAULT_IMAGE_TOKEN}\n{prompt}" if image else prompt
        record = {"question_id": question["id"], "prompt": recorded}
        lost = {"placeholders": max(0, placeholders - (image is not None))}  # one says where the image goes
        samples.append(Sample(question["id"], prompt, science_query(recorded), image, record, lost=lost))
    return samples


def eval_model(args: Any) -> None:
    """Answer the questions of ``args.question_file`` in ``args.answers_file``.

    Args:
        args: the parsed command line, or any object with some of its attributes; the rest take their defaults.

    Raises:
        InputError: unusable options or questions, before the model loads; see ``llava.eval.ask.program.evaluate``.
    """
    args, pruner = prepare(args, build_parser(), "llava_v0")
    samples = science_samples(read_questions(args.question_file), args.image_folder, args.single_pred_prompt)
    evaluate(args, pruner, samples, args.question_file)


def build_parser() -> ArgumentParser:
    """The command line."""
    parser = question_parser("model_vqa_science", __doc__, ("--question-file", "tables/question.json"), "llava_v0")
    parser.add_argument("--single-pred-prompt", action="store_true", help="ask for the option's letter alone")
    parser.add_argument("--answer-prompter", action="store_true", help="taken from LLaVA's scripts, without effect")
    return parser


if __name__ == "__main__":
    run_program(build_parser(), eval_model)
