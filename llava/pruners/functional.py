"""Tensor functions that several pruners share. None of them reads a value back to the host."""

import torch
from torch import Tensor


def rank(scores: Tensor, tier: Tensor | None = None) -> Tensor:
    """Token indices from best to worst, (..., N) -> (..., N) int64.

    A higher tier comes first, then a higher score, then a lower index; a score that is not finite comes last in its
    tier.
    """
    lowest_if_odd = scores.where(scores.isfinite(), -torch.inf)
    order = lowest_if_odd.argsort(dim=-1, descending=True, stable=True)
    if tier is None:
        return order
    return order.gather(-1, tier.gather(-1, order).argsort(dim=-1, descending=True, stable=True))


def image_min(values: Tensor, image_index: Tensor | None) -> Tensor:
    """The smallest value over all tiles of the image that each tile belongs to, (B, N) -> (B, 1).

    NaN in a tile makes the result of its whole image NaN, and of no other image.
    """
    lowest = values.amin(dim=-1)  # (B,)
    if image_index is None:
        return lowest.amin().expand(len(values), 1)
    same_image = image_index[:, None] == image_index[None, :]  # (B, B)
    return lowest.where(same_image, torch.inf).amin(dim=-1, keepdim=True)


def image_max(values: Tensor, image_index: Tensor | None) -> Tensor:
    """The largest value over all tiles of the image that each tile belongs to, (B, N) -> (B, 1)."""
    return -image_min(-values, image_index)
