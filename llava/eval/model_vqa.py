"""Ask a LLaVA model the questions of a JSONL file that want whole sentences: MM-Vet, LLaVA-Bench, one's own.

Question lines hold ``question_id``, ``image`` (relative to ``--image-folder``) and ``text``; answer lines hold
``question_id``, ``prompt``, ``text``, ``answer_id``, ``model_id`` and ``metadata``.
"""

from argparse import ArgumentParser
from typing import Any

from llava.command import run_program
from llava.eval.ask.forms import ask_questions
from llava.eval.ask.parsers import door_parser
from llava.eval.tasks.base import SENTENCES
from llava.records import get_chunk, split_list

__all__ = ["eval_model", "get_chunk", "split_list"]


def eval_model(args: Any) -> None:
    """Answer the questions of a file; see ``llava.eval.ask.forms.ask_questions``."""
    ask_questions(SENTENCES, args, build_parser())


def build_parser() -> ArgumentParser:
    """The command line."""
    return door_parser("model_vqa", __doc__)


if __name__ == "__main__":
    run_program(build_parser(), eval_model)
