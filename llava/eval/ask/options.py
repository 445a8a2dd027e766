"""Command-line options and loading, shared by every program that runs a model."""

import hashlib
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import torch

from llava import provenance
from llava.asking.load import model_path
from llava.command import at_least
from llava.pruners import Pruner, add_pruner_args, name_of
from llava.records import InputError, local_path, read_utf8
from llava.selecting.options import NATIVE, names_of

NEUTRAL = (
    *("answers_file", "overwrite", "batch_size", "num_workers", "on_error", "save_latency"),
    *("profile", "static_cache", "cuda_graphs"),
    *("device", "answer_prompter", "question_file", "questions_file", "tensor_parallel_size"),
)
"""Options that change no answer, or stand for a file whose content counts."""
DECODING = ("temperature", "top_p", "num_beams", "max_new_tokens")
CHOSEN = (
    *("anyres", "budget_scope", "positions", "prune_layer", "text_chunking", "vision_dtype", "conv_mode"),
    *(*DECODING, "static_cache", "cuda_graphs", "limit"),
)
"""Flags whose values the answers of LLaVA's own models record."""
CHOSEN += tuple(name for name in names_of(NATIVE) if name not in CHOSEN)


def add_loop_args(parser: ArgumentParser, media: str = "image") -> None:
    """Which questions are asked of which images or videos, where the answers go, and how the loop runs."""
    where = f"what the {media}s of the questions are relative to"
    parser.add_argument(f"--{media}-folder", dest="image_folder", metavar="FOLDER", default="", help=where)
    parser.add_argument("--answers-file", default="answer.jsonl", help="completed if a run was cut short")
    parser.add_argument("--limit", type=at_least(1), metavar="N", help="ask the first N questions alone")
    parser.add_argument("--num-chunks", type=at_least(1), default=1)
    parser.add_argument("--chunk-idx", type=at_least(0), default=0)
    group = parser.add_argument_group("loop")
    group.add_argument("--overwrite", action="store_true", help="drop the answers there are")
    group.add_argument("--batch_size", type=at_least(1), default=1, help="float32 answers do not depend on it")
    workers = min(4, os.cpu_count() or 1)
    group.add_argument("--num_workers", type=at_least(0), default=workers, help=f"processes that decode {media}s")
    group.add_argument("--on-error", choices=["stop", "skip"], default="stop", help="at one that is unreadable")
    group.add_argument("--save-latency", action="store_true", help="write ANSWERS_latency.json beside the answers")
    static = "a key-value cache of fixed size, with which a GPU's decoding is compiled"
    group.add_argument("--static-cache", action="store_true", default=None, help=static)
    group.add_argument("--profile", action="store_true", help="record what each stage takes, the first batch aside")


def first(questions: Sequence[Any], limit: int | None, file: str | Path) -> Sequence[Any]:
    """The first ``limit`` questions of a file, all of them without a limit.

    Raises:
        InputError: there are not so many.
    """
    if limit is not None and limit > len(questions):
        raise InputError(f"--limit {limit}: {file} has {len(questions)} questions; leave it out to ask them all")
    return questions[:limit]


def describe_pruner(pruner: Pruner | None) -> dict[str, Any]:
    """Name and options of a pruner, its budget among them, as records state them."""
    options = {} if pruner is None else pruner.given()
    return {"pruner": name_of(pruner), "options": {key: _plain(value) for key, value in options.items()}}


def _plain(value: Any) -> Any:
    """A number of NumPy's as one of Python's, which JSON has."""
    if type(value) in (int, float, bool):
        return value
    return int(value) if isinstance(value, Integral) else float(value) if isinstance(value, Real) else value


def describe_run(
    args: Namespace, model: Any, chosen: Sequence[str] = CHOSEN, attention: str = "attention"
) -> dict[str, Any]:
    """What decides the answers besides the pruner: checkpoint, layout, numerics, decoding, versions, commit.

    Args:
        chosen: names of flags that stand there if they are given.
        attention: what the implementation of attention is called.
    """
    flags = {key: getattr(args, key) for key in chosen}
    return {
        "model_path": model_path(args),
        "dtype": str(model.dtype).removeprefix("torch."),
        attention: model.config._attn_implementation,
        "device": str(model.device),
        **{key: value for key, value in flags.items() if value is not None},
        "versions": provenance.versions(),
        "commit": provenance.commit(),
    }


def describe_settings(args: Namespace, pruner: Pruner | None, question_file: str | Path) -> dict[str, Any]:
    """Everything the answers to a question file depend on, before the model is loaded.

    Raises:
        InputError: the question file cannot be read.
    """
    pruner_args = ArgumentParser()
    add_pruner_args(pruner_args)
    described = (*NEUTRAL, *vars(pruner_args.parse_args([])))
    unread = names_of(NATIVE) if pruner is None else ()  # without a choice, how it is applied decides nothing
    digest = hashlib.sha256(read_utf8(question_file).replace(b"\r\n", b"\n")).hexdigest()  # whichever editor saved it
    on_gpu = torch.cuda.is_available() and args.device != "cpu"
    return {
        "sha256 of the questions": digest,
        **describe_pruner(pruner),
        **{name: None if name in unread else value for name, value in vars(args).items() if name not in described},
        "model_path": _place(model_path(args)),
        "image_folder": _place(args.image_folder),
        "dtype": args.dtype or ("float16" if on_gpu else "float32"),
    }


def _place(path: str | Path) -> str:
    """An absolute path, so that it does not matter where a program is started; a hub id stays as it is."""
    path = local_path(path)
    return str(path.resolve() if path.exists() else path)
