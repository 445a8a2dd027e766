"""Ask a LLaVA model the questions of a JSONL file that want whole sentences: MM-Vet, LLaVA-Bench, one's own.

Question lines hold ``question_id``, ``image`` (relative to ``--image-folder``) and ``text``; answer lines hold
``question_id``, ``prompt``, ``text``, ``answer_id``, ``model_id`` and ``metadata``.
"""

from argparse import ArgumentParser
from typing import Any

from llava.command import run_program
from llava.eval.ask.program import evaluate, prepare, question_parser
from llava.eval.tasks.base import SENTENCES
from llava.records import get_chunk, split_list

__all__ = ["eval_model", "get_chunk", "split_list"]


def eval_model(args: Any) -> None:
    """Answer the questions of ``args.question_file`` in ``args.answers_file``.

    Args:
        args: the parsed command line, or any object with some of its attributes; the rest take their defaults.

    Raises:
        InputError: unusable options or questions, before the model loads; see ``llava.eval.ask.program.evaluate``.
    """
    args, pruner = prepare(args, build_parser())
    samples = SENTENCES.samples(SENTENCES.read(args.question_file), args.image_folder)
    evaluate(args, pruner, samples, args.question_file)


def build_parser() -> ArgumentParser:
    """The command line."""
    return question_parser("model_vqa", __doc__)


if __name__ == "__main__":
    run_program(build_parser(), eval_model)
