"""A checkpoint ready to answer: the flags that describe it, and what they come to."""

import logging
import os
import re
from argparse import Namespace
from collections.abc import Iterable
from functools import cache as once
from pathlib import Path
from typing import Any

import torch

from llava.asking.batch import check_decoding
from llava.asking.hosted import LOADING
from llava.asking.llava import LlavaModel
from llava.asking.model import Model
from llava.asking.prompts import check_conv_mode
from llava.command import reason
from llava.conversation import conv_mode_for
from llava.mm_utils import get_model_name_from_path
from llava.model.builder import load_pretrained_model
from llava.model.checkpoint import checkpoint_folder, read_config
from llava.model.devices import check_device
from llava.model.loading import LOADING_OPTIONS, plan
from llava.pruners import Pruner, option_names, pruner_from_args
from llava.pruners.base import BUDGETS
from llava.records import InputError
from llava.selecting.options import HOSTED, PruningOptions, names_of
from llava.selecting.references import read_erank_refs
from llava.shapes import checkpoint_path

logger = logging.getLogger(__name__)

FLAGS = {"attn_implementation": "--attn", "load_8bit": "--load-8bit", "load_4bit": "--load-4bit"}
FLAGS |= {"cuda_graphs": "--cuda-graphs", "model_base": "--model-base", "static_cache": "--static-cache"}
"""Flags that are not called as the option of the builder."""
KEYWORD = re.compile(r"\b(\w+)=(?=[\s,;.]|$)")
BUILDER_OPTIONS = (*LOADING_OPTIONS, "load_8bit", "load_4bit")
OWN = ("base", "device", "dtype", "anyres", "conv_mode")
PRUNING = ("pruner", *BUDGETS, *option_names())
OF_LLAVA = (*PRUNING, *BUILDER_OPTIONS, "device_map", "use_flash_attn")
OF_VLM = (*PRUNING, *names_of(HOSTED), *LOADING)
"""Keywords of ``load`` itself, and those that it hands on for either format."""


def load(
    checkpoint: str | Path | None = None,
    *,
    base: str | None = None,
    device: str | None = None,
    dtype: torch.dtype | str | None = None,
    anyres: str = "native",
    conv_mode: str | None = None,
    **pruning: Any,
) -> Model:
    """Load a checkpoint of either format, as its config.json says.

    Args:
        checkpoint: folder or hub id; None is the embedded model.
        base: the language model that a LoRA or a projector belongs to, for LLaVA's own format.
        anyres: "native", LLaVA-NeXT's own layout, or "fixed", that of the papers; for LLaVA's own format.
        device: cuda, cuda:1, mps, cpu; a GPU, or else the CPU, if not given.
        dtype: float16 on a GPU, or the checkpoint's own of Transformers' models, else float32.
        conv_mode: the conversation template, for LLaVA's own format; the one that the checkpoint's name implies.
        pruning: ``pruner``, its budget and options, and what else ``load_pretrained_model`` or ``load_vlm`` takes.

    Raises:
        TypeError, ValueError, ImportError, FileNotFoundError: as ``load_pretrained_model`` and ``load_vlm``.
    """
    _refuse_unknown(pruning, {*OF_LLAVA, *OF_VLM}, "llava.load")
    _note_untested(device)
    path = os.path.expanduser(checkpoint_path() if checkpoint is None else checkpoint)
    if "mm_vision_tower" in read_config(checkpoint_folder(path)) or base is not None:
        _refuse_unknown(pruning, OF_LLAVA, f"{path}, in LLaVA's own format,")
        return load_llava(path, base, conv_mode, device, dtype=dtype, anyres=anyres, **pruning)
    if conv_mode is not None or anyres != "native":
        raise ValueError(f"conv_mode and anyres are for LLaVA's own format, and {path} is in Transformers'")
    from llava.asking.vlm import load_vlm

    _refuse_unknown(pruning, OF_VLM, f"{path}, in Transformers' format,")
    on_cpu = device == "cpu" or not torch.cuda.is_available()
    return load_vlm(path, device, dtype=dtype or ("float32" if on_cpu else "auto"), **pruning)


def _refuse_unknown(given: Iterable[str], valid: Iterable[str], what: str) -> None:
    """Raise TypeError, which names the valid ones, for keywords of ``load`` that ``what`` does not take."""
    if unknown := sorted(set(given) - set(valid)):
        named = ", ".join(sorted({*valid, *OWN}))
        raise TypeError(f"{what} takes no {', '.join(unknown)}; valid are {named}")


def _note_untested(device: Any) -> None:
    if str(device).startswith("mps"):
        _warn_of_mps()


@once
def _warn_of_mps() -> None:
    logger.warning("device mps is untested: no choice of tokens and no answer has been compared there")


def load_llava(
    checkpoint: str,
    base: str | None = None,
    conv_mode: str | None = None,
    device: str | None = None,
    device_map: Any = None,
    **options: Any,
) -> LlavaModel:
    """Load a checkpoint in LLaVA's format.

    Args:
        checkpoint, base, options: as ``load_pretrained_model``.
        conv_mode: the conversation template; the one that the checkpoint's name implies if not given.
        device: where all of it goes, without a ``device_map``; a GPU, or else the CPU, if not given.

    Raises:
        InputError: no such template.
    """
    name = get_model_name_from_path(checkpoint)
    conv_mode = check_conv_mode(conv_mode or _implied(checkpoint))
    options |= {"device": device or ("cuda" if torch.cuda.is_available() else "cpu"), "device_map": device_map}
    tokenizer, model, image_processor, _ = load_pretrained_model(checkpoint, base, name, **options)
    return LlavaModel(name, tokenizer, model, image_processor, conv_mode)


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
    return _implied(model_path(args), otherwise)


def _implied(path: str, otherwise: str | None = None) -> str:
    embedded = os.path.realpath(path) == os.path.realpath(checkpoint_path())
    return "vicuna_v1" if embedded else otherwise or conv_mode_for(get_model_name_from_path(path))


def load_model(args: Namespace, pruner: Pruner | None) -> LlavaModel:
    """Load the checkpoint the options describe, with ``pruner`` in place.

    Raises:
        InputError: no such checkpoint, one that is not whole or cannot be read, or options as ``check_options``.
    """
    check_options(args, pruner)
    path, conv_mode = model_path(args), getattr(args, "conv_mode", None)
    try:
        return load_llava(path, args.model_base, conv_mode, **_builder_options(args, pruner))
    except Exception as error:  # libraries raise many types about files that are not what they should be
        raise InputError(f"cannot load {path}: {reason(error)}") from error


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
    path = model_path(args)
    try:
        pruning, _ = plan(**_builder_options(args, pruner))
        complete_erank_ref(args, pruning, path)
    except (ImportError, TypeError, ValueError) as error:
        raise InputError(by_flags(str(error), vars(args))) from error


def complete_erank_ref(args: Namespace, pruning: PruningOptions, path: str) -> None:
    """Let ``args`` say what a spectral budget refers to, where the checkpoint's folder does: answers record it.

    Raises:
        ValueError: neither does.
    """
    if pruning.varies and pruning.budget == "spectral":
        args.erank_ref = pruning.completed(read_erank_refs(path)).erank_ref


def check_device_flag(device: str | None) -> None:
    """Raise InputError where ``--device`` names none that is here."""
    try:
        if device is not None:
            check_device(device, "--device")
    except ValueError as error:
        raise InputError(str(error)) from error


def by_flags(message: str, names: Iterable[str]) -> str:
    """A message about options of Python with their flags: of one that it begins with, and of all that end in ``=``."""
    names, flag = {*names}, lambda name: FLAGS.get(name, f"--{name}")
    message = KEYWORD.sub(lambda found: flag(found[1]) if found[1] in names else found[0], message)
    name, space, rest = message.partition(" ")
    return f"{flag(name)}{space}{rest}" if name in names else message


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


def choose_conv_mode(args: Namespace) -> str:
    """The template the checkpoint's name implies; another one the caller asks for wins, with a warning."""
    implied = _implied(model_path(args))
    if args.conv_mode and check_conv_mode(args.conv_mode, "--conv-mode") != implied:
        logger.warning("the model's name implies --conv-mode %s; using %s as asked", implied, args.conv_mode)
    return args.conv_mode or implied
