"""Tensor functions that several pruners share. None of them reads a value back to the host."""

from collections.abc import Callable

import torch
from torch import Tensor


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


def _over_image(values: Tensor, image_index: Tensor | None, extreme: Callable[..., Tensor], of_others: float) -> Tensor:
    """``extreme`` over the tiles of each tile's image; ``of_others`` is what a tile of another image counts as."""
    if image_index is None:
        return extreme(values, dim=(0, -1), keepdim=True).expand(*values.shape[:-1], 1)
    of_tile = extreme(values, dim=-1).movedim(0, -1)  # (..., B)
    other_image = image_index[:, None] != image_index[None, :]  # (B, B)
    other_image = other_image.view(len(values), *(1,) * (of_tile.dim() - 1), len(values))
    return extreme(of_tile.masked_fill(other_image, of_others), dim=-1, keepdim=True)
