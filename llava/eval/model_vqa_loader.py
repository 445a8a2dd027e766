"""Ask a LLaVA model the questions of a JSONL file: VQAv2, GQA, VizWiz, TextVQA, POPE, MME, SEED, shapes.

Question lines hold ``question_id``, ``image`` (relative to ``--image-folder``) and ``text``; answer lines hold
``question_id``, ``prompt``, ``text``, ``answer_id``, ``model_id`` and ``metadata``.
"""

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from llava.eval.dataset import QuestionDataset, Sample
from llava.eval.options import (
    add_generation_args,
    add_model_args,
    choose_pruner,
    default_conv_mode,
    describe_pruner,
    describe_run,
    load_model,
    model_name,
    with_defaults,
)
from llava.eval.program import at_least, run_program
from llava.eval.prompts import check_conv_mode, conv_mode_of_plain_model
from llava.eval.queries import vqa_loader_query
from llava.eval.records import InputError, check_writable, get_chunk, read_jsonl, split_list
from llava.eval.runner import Run, generation_options, run

__all__ = ["CustomDataset", "create_data_loader", "eval_model", "get_chunk", "split_list"]

logger = logging.getLogger(__name__)

QUESTION_KEYS = {"question_id": (int, str), "image": str, "text": str}


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
        folder = Path(image_folder).expanduser()
        samples = [
            Sample(line["question_id"], line["text"], vqa_loader_query(line["text"]), folder / line["image"])
            for line in questions
        ]
        super().__init__(samples, tokenizer, image_processor, model_config, conv_mode)


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
        raise ValueError(f"batch_size must be 1, got {batch_size}; use llava.eval.runner for larger batches")
    dataset = CustomDataset(questions, image_folder, tokenizer, image_processor, model_config, conv_mode)
    return DataLoader(dataset, batch_size, num_workers=num_workers, collate_fn=_collate_one)


def _collate_one(items: list) -> tuple:
    ((input_ids, pixels, size),) = items
    return input_ids.unsqueeze(0), pixels.unsqueeze(0), (size,)


def eval_model(args: Any) -> None:
    """Answer the questions of ``args.question_file`` into ``args.answers_file``.

    Args:
        args: the parsed command line, or any object with some of its attributes; the rest take their defaults.

    Raises:
        InputError: unusable questions, template, chunk or answers path (all before the model loads), or an image that
            cannot be read (with the answers so far on disk).
    """
    args = with_defaults(args, build_parser())
    pruner = choose_pruner(args)
    conv_mode = check_conv_mode(args.conv_mode or default_conv_mode(args, "llava_v1"))
    args.conv_mode = conv_mode_of_plain_model(model_name(args), conv_mode)
    questions = get_chunk(read_questions(args), args.num_chunks, args.chunk_idx)
    answers_file = check_writable(args.answers_file)
    if not questions:
        answers_file.write_text("")
        return
    loaded = load_model(args, pruner)
    config = loaded.model.config
    dataset = CustomDataset(
        questions, args.image_folder, loaded.tokenizer, loaded.image_processor, config, args.conv_mode
    )
    plan = Run(
        answers_file,
        loaded.name,
        describe_pruner(pruner) | {"run": describe_run(args, loaded.model)},
        generation_options(args.temperature, args.top_p, args.num_beams, args.max_new_tokens),
        args.batch_size,
        args.num_workers,
        args.on_error,
    )
    speed = run(dataset, loaded.model, loaded.tokenizer, plan)
    logger.info("%d answers in %s at %.1f images/s", len(dataset), answers_file, speed)


def read_questions(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The question file, checked; the image folder must exist."""
    if args.image_folder and not Path(args.image_folder).expanduser().is_dir():
        raise InputError(f"--image-folder {args.image_folder}: no such folder")
    return read_jsonl(args.question_file, QUESTION_KEYS)


def build_parser() -> argparse.ArgumentParser:
    """LLaVA's flags, then those of the pruners, the model and the loop."""
    parser = argparse.ArgumentParser(prog="python -m llava.eval.model_vqa_loader", description=__doc__)
    parser.add_argument("--image-folder", default="")
    parser.add_argument("--question-file", default="tables/question.jsonl")
    parser.add_argument("--answers-file", default="answer.jsonl")
    parser.add_argument("--conv-mode", help="llava_v1 if not given, vicuna_v1 for the embedded model")
    parser.add_argument("--num-chunks", type=int, default=1)
    parser.add_argument("--chunk-idx", type=int, default=0)
    add_generation_args(parser, max_new_tokens=128)
    parser.add_argument("--batch_size", type=at_least(1), default=1, help="float32 answers do not depend on it")
    parser.add_argument(
        "--num_workers", type=at_least(0), default=min(4, os.cpu_count() or 1), help="processes that decode images"
    )
    parser.add_argument("--on-error", choices=["stop", "skip"], default="stop", help="at an image that is unreadable")
    add_model_args(parser)
    return parser


if __name__ == "__main__":
    run_program(build_parser(), eval_model)
