"""Ask a LLaVA model the questions of Q-Bench, English or Chinese: multiple choice about the quality of an image.

The question file is one JSON array of objects with ``img_path`` (relative to ``--image-folder``), ``question`` and
``candidates``. An answer's line is the question's object with ``response``, ``answer_id``, ``model_id``, ``metadata``.
"""

import copy
import string
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava.asking.queries import qbench_query
from llava.command import run_program
from llava.eval.ask.dataset import QuestionDataset, Sample
from llava.eval.ask.program import evaluate, prepare, question_parser
from llava.eval.tasks.matching import read_json
from llava.records import InputError, check_record, get_chunk, local_path, split_list

__all__ = ["eval_model", "get_chunk", "split_list"]

QUESTION_KEYS = {"img_path": str, "question": str, "candidates": list}
CHOOSE = {"en": "\nChoose between one of the options as follows:\n", "zh": "\n在下列选项中选择一个:\n"}


def read_questions(path: str | Path) -> list[dict[str, Any]]:
    """The question file, checked.

    Raises:
        InputError: no such file, no questions in it, or one of another form; names file and question.
    """
    questions = read_json(path, list)
    for number, question in enumerate(questions, 1):
        check_record(question, f"{path}, question {number}", QUESTION_KEYS)
    if not questions:
        raise InputError(f"{path}: no questions")
    return questions


def qbench_samples(questions: Sequence[dict[str, Any]], image_folder: str | Path, lang: str = "en") -> list[Sample]:
    """Questions as they are asked.

    Args:
        questions: from ``read_questions``.
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


class UnpaddedDataset(QuestionDataset):
    """Questions whose images are cropped to their centre where the model's other images are padded.

    LLaVA-1.5 saw Q-Bench like this. Images that the model cuts into tiles are cut as ever.
    """

    def __init__(
        self, samples: Sequence[Sample], tokenizer: Any, image_processor: Any, model_config: Any, conv_mode: str
    ):
        if getattr(model_config, "image_aspect_ratio", None) == "pad":
            model_config = copy.copy(model_config)
            model_config.image_aspect_ratio = None
        super().__init__(samples, tokenizer, image_processor, model_config, conv_mode)


def eval_model(args: Any) -> None:
    """Answer the questions of ``args.questions_file`` in ``args.answers_file``.

    Args:
        args: the parsed command line, or any object with some of its attributes; the rest take their defaults.

    Raises:
        InputError: unusable options or questions, before the model loads; see ``llava.eval.ask.program.evaluate``.
    """
    args, pruner = prepare(args, build_parser())
    samples = qbench_samples(read_questions(args.questions_file), args.image_folder, args.lang)
    evaluate(args, pruner, samples, args.questions_file, UnpaddedDataset)


def build_parser() -> ArgumentParser:
    """The command line."""
    questions = ("--questions-file", "llvisionqa_dev.json")
    parser = question_parser("model_vqa_qbench", __doc__, questions, temperature=0.0)
    parser.add_argument("--lang", choices=list(CHOOSE), default="en", help="of the line that says to choose")
    return parser


if __name__ == "__main__":
    run_program(build_parser(), eval_model)
