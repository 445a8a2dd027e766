"""Tensor functions of the pruners that merge tokens. None of them reads a value back to the host."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from llava.pruners.search.products import ALIGNMENT


def product(left: Tensor, right: Tensor) -> Tensor:
    """Matrix product tile by tile, the same bits for a tile alone and beside others, (B, K, N), (B, N, D) -> (B, K, D).

    Products round by the alignment and the number of their rows; padded with zeros to whole cache lines on all sides,
    every tile's are alike.
    """
    rows, columns = left.shape[1], right.shape[2]
    return (_padded(left) @ _padded(right))[:, :rows, :columns]


def one_hot(indices: Tensor, num_tokens: int) -> Tensor:
    """One row for each index, 1 at its token and 0 elsewhere, (B, K) -> (B, K, N) float32."""
    rows = torch.zeros(*indices.shape, num_tokens, device=indices.device)
    return rows.scatter_(2, indices.unsqueeze(2), 1.0)


def place_for_rest(kept: Tensor, num_tokens: int) -> Tensor:
    """The last token of each tile that is not kept, where one made of all such may stand, (B, K) -> (B, 1) int64."""
    places = torch.arange(num_tokens, device=kept.device).repeat(len(kept), 1)
    return places.scatter(1, kept, -1).amax(dim=1, keepdim=True)


def _padded(matrix: Tensor) -> Tensor:
    rows, columns = (-size % ALIGNMENT for size in matrix.shape[1:])
    return pad(matrix, (0, columns, 0, rows)) if rows or columns else matrix
