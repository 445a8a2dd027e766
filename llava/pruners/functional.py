"""Tensor functions that several pruners share. None of them reads a value back to the host."""

from collections.abc import Callable
from math import exp, isqrt

import torch
from torch import Tensor

NEIGHBOUR = exp(-0.5)  # weight of a neighbour beside 1 of the token itself: a Gaussian of sigma 1


def rank(scores: Tensor, tier: Tensor | None = None) -> Tensor:
    """Token indices from best to worst, (..., N) -> (..., N) int64.

    A higher tier comes first, then a higher score, then a lower index; a score that is not finite comes last in its
    tier.
    """
    lowest_if_odd = scores.nan_to_num(nan=-torch.inf, posinf=-torch.inf, neginf=-torch.inf)
    order = lowest_if_odd.argsort(dim=-1, descending=True, stable=True)
    if tier is None:
        return order
    return order.gather(-1, tier.gather(-1, order).argsort(dim=-1, descending=True, stable=True))


def image_min(values: Tensor, image_index: Tensor | None) -> Tensor:
    """The smallest value over all tiles of the image that each tile belongs to, (B, ..., N) -> (B, ..., 1).

    NaN in a tile makes the result of its whole image NaN, and of no other image.
    """
    return _over_image(values, image_index, torch.amin, torch.inf)


def image_max(values: Tensor, image_index: Tensor | None) -> Tensor:
    """The largest value over all tiles of the image that each tile belongs to, (B, ..., N) -> (B, ..., 1).

    NaN as in ``image_min``.
    """
    return _over_image(values, image_index, torch.amax, -torch.inf)


def min_max(values: Tensor, image_index: Tensor | None) -> Tensor:
    """Spread the finite values of each image over (0, 1]; the others become 0, (B, ..., N) -> (B, ..., N)."""
    low = image_min(values.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=torch.inf), image_index)
    high = image_max(values.nan_to_num(nan=-torch.inf, posinf=-torch.inf, neginf=-torch.inf), image_index)
    return ((values - low + 1e-6) / (high - low + 1e-6)).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


def finite(values: Tensor) -> Tensor:
    """The values with a zero for each that is not finite, of any shape."""
    return values.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


def spread(values: Tensor) -> Tensor:
    """Finite values of each row from 0, the smallest, to 1, the largest, (..., N) -> (..., N).

    All are 1 where they do not differ by more than rounding may.
    """
    low, high = values.amin(dim=-1, keepdim=True), values.amax(dim=-1, keepdim=True)
    span = high - low
    return ((values - low) / span).masked_fill(span <= 1e-6 * torch.maximum(high.abs(), low.abs()), 1.0)


def smoothed(values: Tensor, grid: tuple[int, int] | None) -> Tensor:
    """The mean of every token and its eight neighbours, weighted by a Gaussian of sigma 1, (B, N) -> (B, N).

    Beyond its border the grid goes on mirrored. Tokens without a grid stand in a square if their number is that of one,
    and stay as they are otherwise; so they do along an axis of length 1.
    """
    side = isqrt(values.shape[1])
    if grid is None and side * side != values.shape[1]:
        return values
    values = values.unflatten(1, grid or (side, side))  # (B, rows, columns)
    for axis, length in enumerate(values.shape[1:], start=1):
        if length > 1:
            before = torch.cat([values.narrow(axis, 1, 1), values.narrow(axis, 0, length - 1)], dim=axis)
            behind = torch.cat([values.narrow(axis, 1, length - 1), values.narrow(axis, length - 2, 1)], dim=axis)
            values = (values + NEIGHBOUR * (before + behind)) / (1 + 2 * NEIGHBOUR)
    return values.flatten(1)


def _over_image(values: Tensor, image_index: Tensor | None, extreme: Callable[..., Tensor], of_others: float) -> Tensor:
    """``extreme`` over the tiles of each tile's image; ``of_others`` is what a tile of another image counts as."""
    if image_index is None:
        return extreme(values, dim=(0, -1), keepdim=True).expand(*values.shape[:-1], 1)
    of_tile = extreme(values, dim=-1).movedim(0, -1)  # (..., B)
    other_image = image_index[:, None] != image_index[None, :]  # (B, B)
    other_image = other_image.view(len(values), *(1,) * (of_tile.dim() - 1), len(values))
    return extreme(of_tile.masked_fill(other_image, of_others), dim=-1, keepdim=True)
