"""The bounds of what a user may say about decoding."""

from collections.abc import Mapping
from typing import Any

from llava.command import SHARE, Number, at_least
from llava.records import InputError

COLDEST = 1e-30  # below it, logits divided by it are not finite
DECODING: dict[str, Number] = {
    "temperature": Number(float, 0),
    "top_p": SHARE,
    "top_k": at_least(0),
    "num_beams": at_least(1),
    "max_new_tokens": at_least(1),
    "min_new_tokens": at_least(0),
    "no_repeat_ngram_size": at_least(0),
    "repetition_penalty": Number(float, 0, above=True),
    "length_penalty": Number(float, float("-inf")),
}


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
