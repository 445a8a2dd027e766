"""Ask a LLaVA model the questions of a JSONL file: VQAv2, GQA, VizWiz, TextVQA, POPE, MME, SEED, shapes.

Question lines hold ``question_id``, ``image`` (relative to ``--image-folder``) and ``text``; answer lines hold
``question_id``, ``prompt``, ``text``, ``answer_id``, ``model_id`` and ``metadata``.
"""

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from llava.command import run_program
from llava.eval.ask.dataset import QuestionDataset
from llava.eval.ask.forms import ask_questions
from llava.eval.ask.parsers import door_parser
from llava.eval.tasks.base import SHORT
from llava.records import get_chunk, split_list

__all__ = ["CustomDataset", "create_data_loader", "eval_model", "get_chunk", "split_list"]


class CustomDataset(QuestionDataset):
    """The questions of a file, as the model reads them; see ``QuestionDataset`` for what an item is.

    Args:
        questions: objects with ``question_id``, ``image`` and ``text``.
        image_folder: what ``image`` is relative to.
        conv_mode: conversation template.
    """

    def __init__(
        self,
        questions: Sequence[dict[str, Any]],
        image_folder: str | Path,
        tokenizer: Any,
        image_processor: Any,
        model_config: Any,
        conv_mode: str = "llava_v1",
    ):
        super().__init__(SHORT.samples(questions, image_folder), tokenizer, image_processor, model_config, conv_mode)


def create_data_loader(
    questions: Sequence[dict[str, Any]],
    image_folder: str | Path,
    tokenizer: Any,
    image_processor: Any,
    model_config: Any,
    batch_size: int = 1,
    num_workers: int = 4,
    conv_mode: str = "llava_v1",
) -> DataLoader:
    """LLaVA's loader for programs that run their own loop: input ids (1, L), images (1, ...), sizes.

    Raises:
        ValueError: a batch size other than 1; prompts of different lengths do not stack.
    """
    if batch_size != 1:
        raise ValueError(f"batch_size must be 1, got {batch_size}; use llava.eval.ask.loop for larger batches")
    dataset = CustomDataset(questions, image_folder, tokenizer, image_processor, model_config, conv_mode)
    return DataLoader(dataset, batch_size, num_workers=num_workers, collate_fn=_collate_one)


def _collate_one(items: list) -> tuple:
    ((input_ids, pixels, size),) = items
    return input_ids.unsqueeze(0), pixels.unsqueeze(0), (size,)


def eval_model(args: Any) -> None:
    """Answer the questions of a file; see ``llava.eval.ask.forms.ask_questions``."""
    ask_questions(SHORT, args, build_parser())


def build_parser() -> ArgumentParser:
    """The command line."""
    return door_parser("model_vqa_loader", __doc__)


if __name__ == "__main__":
    run_program(build_parser(), eval_model)
