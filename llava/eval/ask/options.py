"""Command-line options and loading, shared by every program that runs a model."""

import hashlib
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import torch

from llava import provenance
from llava.asking.decoding import DECODING, check_decoding
from llava.command import at_least, check_values, reason
from llava.mm_utils import get_model_name_from_path
from llava.model.builder import load_pretrained_model
from llava.model.devices import ATTENTION, check_device
from llava.model.loading import ANYRES, plan
from llava.pruners import Pruner, add_pruner_args, name_of, pruner_from_args
from llava.records import InputError, local_path, read_utf8
from llava.selecting.options import BUDGET_SCOPES, POSITIONS, TEXT_CHUNKING
from llava.shapes import checkpoint_path

NEUTRAL = (
    *("answers_file", "overwrite", "batch_size", "num_workers", "on_error", "save_latency"),
    *("profile", "static_cache"),
    *("device", "answer_prompter", "question_file", "questions_file"),
)
"""Options that change no answer, or stand for a file whose content counts."""
DTYPES = ("float32", "float16", "bfloat16")
FLAGS = {"attn_implementation": "--attn", "load_8bit": "--load-8bit", "load_4bit": "--load-4bit"}
"""Flags that are not called as the option of the builder."""
BUILDER_OPTIONS = (
    "budget_scope",
    "positions",
    "prune_layer",
    "text_chunking",
    "vision_dtype",
    "attn_implementation",
    "load_8bit",
    "load_4bit",
)


@dataclass(frozen=True)
class LoadedModel:
    """A checkpoint ready to answer, and the name its answers carry."""

    name: str
    tokenizer: Any
    model: Any
    image_processor: Any


def add_model_args(parser: ArgumentParser) -> None:
    """Which checkpoint, where and how it runs, and the pruner with its options."""
    parser.add_argument("--model-path", help="checkpoint folder or hub id; the embedded shapes model if not given")
    parser.add_argument("--model-base")
    group = parser.add_argument_group("model")
    group.add_argument("--anyres", choices=ANYRES, default="native", help="tiles of a LLaVA-NeXT model")
    group.add_argument("--device", help="cuda, cuda:1, cpu, ...; every visible GPU, or else the CPU, if not given")
    group.add_argument("--dtype", choices=DTYPES, help="float16 on a GPU, else float32")
    group.add_argument("--attn", dest="attn_implementation", choices=ATTENTION)
    group.add_argument("--vision_dtype", choices=DTYPES, help="as --dtype if not given")
    group.add_argument("--budget_scope", choices=BUDGET_SCOPES, help="what the budget of a pruner counts for")
    group.add_argument("--positions", choices=POSITIONS, help="of kept tokens; compact if not given")
    group.add_argument(
        "--prune_layer", type=at_least(0), metavar="K", help="decoder layers that see all tokens; 0 if not given"
    )
    group.add_argument("--text_chunking", choices=TEXT_CHUNKING, help="how texts over 77 tokens are cut")
    add_pruner_args(parser)


def add_loop_args(parser: ArgumentParser, media: str = "image") -> None:
    """Which questions are asked of which images or videos, where the answers go, and how the loop runs."""
    where = f"what the {media}s of the questions are relative to"
    parser.add_argument(f"--{media}-folder", dest="image_folder", metavar="FOLDER", default="", help=where)
    parser.add_argument("--answers-file", default="answer.jsonl", help="completed if a run was cut short")
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


def add_generation_args(parser: ArgumentParser, max_new_tokens: int, temperature: float = 0.2) -> None:
    """LLaVA's decoding flags; a temperature of 0 is greedy."""
    parser.add_argument("--temperature", type=DECODING["temperature"], default=temperature)
    parser.add_argument("--top_p", type=DECODING["top_p"])
    parser.add_argument("--num_beams", type=DECODING["num_beams"], default=1)
    parser.add_argument("--max_new_tokens", type=DECODING["max_new_tokens"], default=max_new_tokens)


def with_defaults(args: Any, parser: ArgumentParser, required: Sequence[str] = ()) -> Namespace:
    """Every option of ``parser``: the value ``args`` has, else the default, which None stands for, too.

    Programs that call ``eval_model`` themselves pass any object with the attributes they know of.

    Args:
        required: flags the parser insists on.

    Raises:
        InputError: a value that the flag does not take.
    """
    defaults = vars(parser.parse_args([word for flag in required for word in (flag, "")]))
    given = {name: getattr(args, name, None) for name in defaults}
    filled = {name: value if given[name] is None else given[name] for name, value in defaults.items()}
    return check_values(Namespace(**filled), parser)


def model_path(args: Namespace) -> str:
    """The checkpoint asked for, or the embedded one.

    Raises:
        InputError: an empty name, as of a variable that is not set.
    """
    if args.model_path is None:
        return str(checkpoint_path())
    if not str(args.model_path).strip():
        raise InputError("--model-path is empty: name a checkpoint, or leave the flag out for the embedded model")
    return os.path.expanduser(args.model_path)


def model_name(args: Namespace) -> str:
    """The name of the checkpoint, as answers record it."""
    return get_model_name_from_path(model_path(args))


def default_conv_mode(args: Namespace, otherwise: str) -> str:
    """The template of the embedded model where that is meant, else ``otherwise``."""
    return "vicuna_v1" if os.path.realpath(model_path(args)) == os.path.realpath(checkpoint_path()) else otherwise


def load_model(args: Namespace, pruner: Pruner | None) -> LoadedModel:
    """Load the checkpoint the options describe, with ``pruner`` in place.

    Raises:
        InputError: no such checkpoint, one that is not whole or cannot be read, or options as ``check_options``.
    """
    check_options(args, pruner)
    name = model_name(args)
    try:
        parts = load_pretrained_model(model_path(args), args.model_base, name, **_builder_options(args, pruner))
    except Exception as error:  # libraries raise many types about files that are not what they should be
        raise InputError(f"cannot load {model_path(args)}: {reason(error)}") from error
    tokenizer, model, image_processor, _ = parts
    return LoadedModel(name, tokenizer, model, image_processor)


def check_options(args: Namespace, pruner: Pruner | None) -> None:
    """Refuse what cannot work whatever the checkpoint is, before it is looked at and before a file is written.

    Raises:
        InputError: a device that is not there, an option with a wrong value, options that exclude each other, or one
            that needs a package that is not installed.
    """
    if getattr(args, "static_cache", None) and args.prune_layer:
        raise InputError("--static-cache gives every layer as many keys: it cannot be combined with --prune_layer")
    check_decoding(vars(args), "--")
    check_device_flag(args.device)
    model_path(args)
    try:
        plan(**_builder_options(args, pruner))
    except (ImportError, TypeError, ValueError) as error:
        raise InputError(by_flags(str(error), vars(args))) from error


def check_device_flag(device: str | None) -> None:
    """Raise InputError where ``--device`` names none that is here."""
    try:
        if device is not None:
            check_device(device, "--device")
    except ValueError as error:
        raise InputError(str(error)) from error


def by_flags(message: str, names: Iterable[str]) -> str:
    """A message about an option of Python, with its flag in front where the message begins with the option's name."""
    name, space, rest = message.partition(" ")
    return f"{FLAGS.get(name, f'--{name}')}{space}{rest}" if name in names else message


def _builder_options(args: Namespace, pruner: Pruner | None) -> dict[str, Any]:
    """Keywords of ``load_pretrained_model``."""
    spread = args.device is None and torch.cuda.is_available()
    placement = {"device_map": "auto" if spread else None, "device": "cuda" if spread else args.device or "cpu"}
    options = {key: getattr(args, key) for key in BUILDER_OPTIONS if getattr(args, key, None) is not None}
    return {**placement, **options, "pruner": pruner, "anyres": args.anyres, "dtype": args.dtype}


def choose_pruner(args: Namespace) -> Pruner | None:
    """The pruner the options mean, None for plain LLaVA.

    Raises:
        InputError: an option that does not fit.
    """
    try:
        return pruner_from_args(args)
    except (TypeError, ValueError) as error:
        raise InputError(by_flags(str(error), vars(args))) from error


def describe_pruner(pruner: Pruner | None) -> dict[str, Any]:
    """Name and options of a pruner, its budget among them, as records state them."""
    options = {} if pruner is None else vars(pruner)
    given = {key: _plain(value) for key, value in options.items() if value is not None}
    return {"pruner": name_of(pruner), "options": given}


def _plain(value: Any) -> Any:
    """A number of NumPy's as one of Python's, which JSON has."""
    if type(value) in (int, float, bool):
        return value
    return int(value) if isinstance(value, Integral) else float(value) if isinstance(value, Real) else value


def describe_run(args: Namespace, model: Any) -> dict[str, Any]:
    """What decides the answers besides the pruner: checkpoint, layout, numerics, decoding, versions, commit."""
    chosen = ("anyres", "budget_scope", "positions", "prune_layer", "text_chunking", "vision_dtype", "conv_mode")
    decoding = ("temperature", "top_p", "num_beams", "max_new_tokens", "static_cache")
    flags = {key: getattr(args, key) for key in chosen + decoding}
    return {
        "model_path": model_path(args),
        "dtype": str(model.dtype).removeprefix("torch."),
        "attention": model.config._attn_implementation,
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
    digest = hashlib.sha256(read_utf8(question_file).replace(b"\r\n", b"\n")).hexdigest()  # whichever editor saved it
    on_gpu = torch.cuda.is_available() and args.device != "cpu"
    return {
        "sha256 of the questions": digest,
        **describe_pruner(pruner),
        **{name: value for name, value in vars(args).items() if name not in described},
        "model_path": _place(model_path(args)),
        "image_folder": _place(args.image_folder),
        "dtype": args.dtype or ("float16" if on_gpu else "float32"),
    }


def _place(path: str | Path) -> str:
    """An absolute path, so that it does not matter where a program is started; a hub id stays as it is."""
    path = local_path(path)
    return str(path.resolve() if path.exists() else path)
