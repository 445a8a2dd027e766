"""Spatial stride, the baseline that looks at nothing."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from llava.pruners.base import Pruner
from llava.pruners.cues import VisualCues


@dataclass(frozen=True)
class UniformPruner(Pruner):
    """Keep tokens at even distances.

    A square tile is cut into round(sqrt(T)) bands, the tokens are dealt evenly to the bands, and each stands in the
    middle of its share of its band. Any other sequence is one band.
    """

    def select(self, cues: VisualCues, budget: int) -> Tensor:
        batch, num_tokens = cues.shape
        side = math.isqrt(num_tokens)
        if side * side == num_tokens:
            bands = round(math.sqrt(budget))
            starts = [budget * band // bands for band in range(bands + 1)]
            kept = [
                row * side + column
                for row, start, stop in zip(_centres(bands, side), starts[:-1], starts[1:], strict=True)
                for column in _centres(stop - start, side)
            ]
        else:
            kept = _centres(budget, num_tokens)
        return torch.tensor(kept, device=cues.device).repeat(batch, 1)


def _centres(count: int, length: int) -> list[int]:
    """The positions in the middle of ``count`` equal parts of ``length`` positions."""
    return [(2 * part + 1) * length // (2 * count) for part in range(count)]
