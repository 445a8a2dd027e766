"""Ask a LLaVA model the questions of a JSONL file that want whole sentences: MM-Vet, LLaVA-Bench, one's own.

Question lines hold ``question_id``, ``image`` (relative to ``--image-folder``) and ``text``; answer lines hold
``question_id``, ``prompt``, ``text``, ``answer_id``, ``model_id`` and ``metadata``.
"""

from argparse import ArgumentParser
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from llava.asking.queries import vqa_query
from llava.command import run_program
from llava.eval.ask.dataset import Sample
from llava.eval.ask.program import evaluate, prepare, question_parser
from llava.records import get_chunk, local_path, read_jsonl, split_list

__all__ = ["eval_model", "get_chunk", "split_list", "vqa_samples"]

QUESTION_KEYS = {"question_id": (int, str), "image": str, "text": str}


def vqa_samples(
    questions: Iterable[dict[str, Any]], image_folder: str | Path, query: Callable[[str], str]
) -> list[Sample]:
    """Questions as they are asked.

    Args:
        questions: objects with ``question_id``, ``image`` and ``text``.
        image_folder: what ``image`` is relative to.
        query: turns ``text`` into what pruners compare with the image.
    """
    folder = local_path(image_folder)
    return [
        Sample(line["question_id"], line["text"], query(line["text"]), folder / line["image"]) for line in questions
    ]


def eval_model(args: Any) -> None:
    """Answer the questions of ``args.question_file`` in ``args.answers_file``.

    Args:
        args: the parsed command line, or any object with some of its attributes; the rest take their defaults.

    Raises:
        InputError: unusable options or questions, before the model loads; see ``llava.eval.ask.program.evaluate``.
    """
    args, pruner = prepare(args, build_parser())
    samples = vqa_samples(read_jsonl(args.question_file, QUESTION_KEYS), args.image_folder, vqa_query)
    evaluate(args, pruner, samples, args.question_file)


def build_parser() -> ArgumentParser:
    """The command line."""
    return question_parser("model_vqa", __doc__)


if __name__ == "__main__":
    run_program(build_parser(), eval_model)
