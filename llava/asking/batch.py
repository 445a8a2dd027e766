"""A batch for ``generate``: prompts and images side by side, and how the answers are decoded."""

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from llava.flags.model import DECODING
from llava.records import InputError

COLDEST = 1e-30  # below it, logits divided by it are not finite


def check_decoding(given: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The settings in ``given`` that have bounds, as numbers of Python; None is not given.

    Args:
        prefix: stands before a name in an error, such as ``--``.

    Raises:
        InputError: a value out of its bounds; names it and them.
    """
    known = {name: number for name, number in DECODING.items() if given.get(name) is not None}
    checked = {name: number.check(f"{prefix}{name}", given[name]) for name, number in known.items()}
    if 0 < checked.get("temperature", 0) < COLDEST:
        raise InputError(f"{prefix}temperature: {given['temperature']!r} is too close to 0; 0 is greedy")
    return checked


def generation_options(
    temperature: float = 0.0,
    top_p: float | None = None,
    num_beams: int = 1,
    max_new_tokens: int = 128,
    static_cache: bool | None = False,
    **unknown: Any,
) -> dict[str, Any]:
    """Keywords of ``generate``; a temperature of 0 is greedy and leaves the sampling arguments out.

    Raises:
        TypeError: a keyword that is none of these; names the valid ones.
        InputError: a value out of its bounds.
    """
    if unknown:
        valid = ", ".join(name for name in signature(generation_options).parameters if name != "unknown")
        raise TypeError(f"unknown options of generation {', '.join(unknown)}; valid are {valid}")
    check_decoding(
        {"temperature": temperature, "top_p": top_p, "num_beams": num_beams, "max_new_tokens": max_new_tokens}
    )
    options = {"num_beams": num_beams, "max_new_tokens": max_new_tokens, "use_cache": True}
    if static_cache:
        options["cache_implementation"] = "static"
    if temperature > 0:
        return options | {"do_sample": True, "temperature": temperature, "top_p": top_p}
    return options | {"do_sample": False}


def pad_token_id(tokenizer: Any) -> int:
    """A special token to pad with; decoding drops it."""
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


def unfinished(output_ids: torch.Tensor, model: Any, tokenizer: Any, generation: Mapping[str, Any]) -> list[bool]:
    """Which rows of new ids, (B, L), hold as many as ``max_new_tokens`` allows and no end among them."""
    if output_ids.shape[1] < generation.get("max_new_tokens", float("inf")):
        return [False] * len(output_ids)
    ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ends = tokenizer.eos_token_id if ends is None else ends
    ends = torch.tensor(ends if isinstance(ends, list) else [ends], device=output_ids.device)
    return (~torch.isin(output_ids, ends).any(dim=1)).tolist()


def left_pad(rows: Sequence[Tensor], pad_id: int) -> tuple[Tensor, Tensor]:
    """Pad prompts of different lengths on the left, where generation needs it.

    Returns:
        ids (B, L) and the attention mask (B, L), False on padding.
    """
    length = max(len(row) for row in rows)
    ids = torch.full((len(rows), length), pad_id)
    mask = torch.zeros_like(ids, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, length - len(row) :] = row
        mask[i, length - len(row) :] = True
    return ids, mask


def stack_images(pixels: Sequence[Tensor]) -> Tensor | list[Tensor]:
    """(B, 3, H, W) for plain images, a list of (tiles, 3, H, W) under anyres: the two forms ``generate`` takes."""
    return torch.stack(list(pixels)) if pixels[0].ndim == 3 else list(pixels)


def positive(name: str, value: Any) -> int:
    """An argument that must be a whole number from 1 up, given as a number or as a text.

    Raises:
        ValueError: it is something else, such as lmms-eval's ``auto``.
    """
    if not str(value).isdecimal() or int(value) < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
    return int(value)
