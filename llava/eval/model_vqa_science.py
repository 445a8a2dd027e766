"""Ask a LLaVA model the questions of ScienceQA, with an image or without.

The question file is one JSON array of objects with ``id``, ``conversations`` and, where there is an image, ``image``
(relative to ``--image-folder``). A recorded prompt begins with ``<image>`` where the question has an image.
"""

from argparse import ArgumentParser
from typing import Any

from llava.command import run_program
from llava.eval.ask.forms import ask_questions
from llava.eval.ask.parsers import door_parser
from llava.eval.tasks.sqa import SCIENCE
from llava.records import get_chunk, split_list

__all__ = ["eval_model", "get_chunk", "split_list"]


def eval_model(args: Any) -> None:
    """Answer the questions of a file; see ``llava.eval.ask.forms.ask_questions``."""
    ask_questions(SCIENCE, args, build_parser())


def build_parser() -> ArgumentParser:
    """The command line."""
    return door_parser("model_vqa_science", __doc__)


if __name__ == "__main__":
    run_program(build_parser(), eval_model)
