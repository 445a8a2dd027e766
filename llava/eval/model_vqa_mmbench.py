"""Ask a LLaVA model the questions of MMBench, English or Chinese; the images are in the table itself.

Columns read are ``index``, ``question``, ``hint``, ``A`` to ``D`` and ``image`` (base64). Only an empty cell is
missing: an option called ``None`` or ``NA`` is an option.
"""

from argparse import ArgumentParser
from typing import Any

from llava.command import run_program
from llava.eval.ask.forms import ask_questions
from llava.eval.ask.parsers import door_parser
from llava.eval.tasks.mmbench import TABLE
from llava.records import get_chunk, split_list

__all__ = ["eval_model", "get_chunk", "split_list"]


def eval_model(args: Any) -> None:
    """Answer the questions of a file; see ``llava.eval.ask.forms.ask_questions``."""
    ask_questions(TABLE, args, build_parser())


def build_parser() -> ArgumentParser:
    """The command line."""
    return door_parser("model_vqa_mmbench", __doc__)


if __name__ == "__main__":
    run_program(build_parser(), eval_model)
