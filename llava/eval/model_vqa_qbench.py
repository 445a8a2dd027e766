"""Ask a LLaVA model the questions of Q-Bench, English or Chinese: multiple choice about the quality of an image.

The question file is one JSON array of objects with ``img_path`` (relative to ``--image-folder``), ``question`` and
``candidates``. An answer's line is the question's object with ``response``, ``answer_id``, ``model_id``, ``metadata``.
"""

from argparse import ArgumentParser
from typing import Any

from llava.command import run_program
from llava.eval.ask.program import evaluate, prepare, question_parser
from llava.eval.ask.unpadded import UnpaddedDataset
from llava.eval.tasks.qbench import CHOOSE, QUALITY
from llava.records import get_chunk, split_list

__all__ = ["eval_model", "get_chunk", "split_list"]


def eval_model(args: Any) -> None:
    """Answer the questions of ``args.questions_file`` in ``args.answers_file``.

    Args:
        args: the parsed command line, or any object with some of its attributes; the rest take their defaults.

    Raises:
        InputError: unusable options or questions, before the model loads; see ``llava.eval.ask.program.evaluate``.
    """
    args, pruner = prepare(args, build_parser())
    samples = QUALITY.samples(QUALITY.read(args.questions_file), args.image_folder, args.lang)
    evaluate(args, pruner, samples, args.questions_file, UnpaddedDataset)


def build_parser() -> ArgumentParser:
    """The command line."""
    questions = ("--questions-file", "llvisionqa_dev.json")
    parser = question_parser("model_vqa_qbench", __doc__, questions, temperature=0.0)
    parser.add_argument("--lang", choices=list(CHOOSE), default="en", help="of the line that says to choose")
    return parser


if __name__ == "__main__":
    run_program(build_parser(), eval_model)
