"""Command-line options and loading, shared by every program that runs a model."""

import hashlib
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import torch

from llava import provenance
from llava.asking.load import model_path
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
    flags |= {"batch_size": args.batch_size} if args.batch_size > 1 else {}  # half precision rounds by it
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
