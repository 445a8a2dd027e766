"""Ask a LLaVA model the questions of ScienceQA, with an image or without.

The question file is one JSON array of objects with ``id``, ``conversations`` and, where there is an image, ``image``
(relative to ``--image-folder``). A recorded prompt begins with ``<image>`` where the question has an image.
"""

from argparse import ArgumentParser
from typing import Any

from llava.command import run_program
from llava.eval.ask.program import evaluate, prepare, question_parser
from llava.eval.tasks.sqa import SCIENCE
from llava.records import get_chunk, split_list

__all__ = ["eval_model", "get_chunk", "split_list"]


def eval_model(args: Any) -> None:
    """Answer the questions of ``args.question_file`` in ``args.answers_file``.

    Args:
        args: the parsed command line, or any object with some of its attributes; the rest take their defaults.

    Raises:
        InputError: unusable options or questions, before the model loads; see ``llava.eval.ask.program.evaluate``.
    """
    args, pruner = prepare(args, build_parser(), SCIENCE.conv_mode)
    samples = SCIENCE.samples(SCIENCE.read(args.question_file), args.image_folder, args.single_pred_prompt)
    evaluate(args, pruner, samples, args.question_file)


def build_parser() -> ArgumentParser:
    """The command line."""
    parser = question_parser("model_vqa_science", __doc__, ("--question-file", "tables/question.json"), "llava_v0")
    parser.add_argument("--single-pred-prompt", action="store_true", help="ask for the option's letter alone")
    parser.add_argument("--answer-prompter", action="store_true", help="taken from LLaVA's scripts, without effect")
    return parser


if __name__ == "__main__":
    run_program(build_parser(), eval_model)
