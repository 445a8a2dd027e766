"""Ask a LLaVA model the questions of Q-Bench, English or Chinese: multiple choice about the quality of an image.

The question file is one JSON array of objects with ``img_path`` (relative to ``--image-folder``), ``question`` and
``candidates``. An answer's line is the question's object with ``response``, ``answer_id``, ``model_id``, ``metadata``.
"""

from argparse import ArgumentParser
from typing import Any

from llava.command import run_program
from llava.eval.ask.forms import ask_questions
from llava.eval.ask.parsers import door_parser
from llava.eval.tasks.qbench import QUALITY
from llava.records import get_chunk, split_list

__all__ = ["eval_model", "get_chunk", "split_list"]


def eval_model(args: Any) -> None:
    """Answer the questions of a file; see ``llava.eval.ask.forms.ask_questions``."""
    ask_questions(QUALITY, args, build_parser())


def build_parser() -> ArgumentParser:
    """The command line."""
    return door_parser("model_vqa_qbench", __doc__)


if __name__ == "__main__":
    run_program(build_parser(), eval_model)
