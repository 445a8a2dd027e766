"""What options and tensors must be, checked where they come in."""

from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor


def is_count(value: object) -> bool:
    """Whether an option holds an integer, 0 or more; True and False do not count as 1 and 0."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 0


def is_number(value: object) -> bool:
    """Whether an option holds a real number; True and False do not count as 1 and 0."""
    return isinstance(value, Real) and not isinstance(value, bool)


def plain(value: Any) -> Any:
    """A number or truth value of NumPy or the like as Python's own, which JSON takes; anything else as it is."""
    if getattr(getattr(value, "dtype", None), "kind", None) == "b" and value.ndim == 0:
        return bool(value)
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def check_tensor(
    name: str, value: object, form: str, dtype: torch.dtype | None = None, shape: tuple[int | None, ...] | None = None
) -> None:
    """Refuse what is no tensor of this form, such as "(B, N)", by name; nothing is read back from its device.

    Args:
        name: what it is called in the error.
        value: what was given.
        form: its dimensions in words. Unless ``shape`` gives their sizes, none but N, the tokens, may be 0: of a very
            slender image a tile may lose all.
        dtype: of its numbers; None for any floating-point one.
        shape: the size of each dimension, None where any will do.

    Raises:
        TypeError: for something else than a tensor, or other numbers.
        ValueError: for another rank or size.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor {form}, not {type(value).__name__}")
    given = tuple(value.shape)
    wanted = (None,) * (form.count(",") + 1) if shape is None else shape
    if len(given) != len(wanted) or any(size not in (None, own) for size, own in zip(wanted, given, strict=True)):
        exactly = f" with sizes {wanted}" if shape is not None else ""
        raise ValueError(f"{name} must be of shape {form}{exactly}, not {given}")
    if shape is None and 0 in (given[0], *given[2:]):
        raise ValueError(f"{name} of shape {form} must not be empty: {given}")
    if value.dtype != dtype if dtype is not None else not value.is_floating_point():
        raise TypeError(f"{name} must hold {dtype or 'floating-point numbers'}, not {value.dtype}")
