"""VisPruner: Beyond Text-Visual Attention (ICCV 2025), https://arxiv.org/abs/2412.01818."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from llava.pruners.base import Pruner, VisualCues
from llava.pruners.checks import is_number
from llava.pruners.functional import rank
from llava.pruners.search.device import compiled, on_cpu
from llava.pruners.search.products import ROWS_AT_ONCE, fits_gram, gram, unit_vectors
from llava.pruners.search.rows import NearestNeighbours

REMOVED_PER_ROUND = 8


@dataclass(frozen=True)
class VisPruner(Pruner):
    """Keep the tokens that [CLS] attends to most, and of the others those with the fewest duplicates.

    Duplicates are removed in rounds over the encoder's features: each round splits the remaining tokens into two
    halves and drops the tokens of the first that are most similar to one of the second. Any number of remaining
    tokens will do; the release needs an even one.

    Args:
        important_ratio: share of the kept tokens chosen by attention, in [0, 1], rounded down.

    Raises:
        ValueError: when important_ratio is out of range.
    """

    important_ratio: float = 0.5

    needs = frozenset({"features", "cls_attention"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (is_number(self.important_ratio) and 0 <= self.important_ratio <= 1):
            raise ValueError(f"important_ratio must be a number in [0, 1], not {self.important_ratio!r}")

    def select(self, cues: VisualCues, budget: int) -> Tensor:
        num_important = int(budget * self.important_ratio)
        by_attention = rank(cues.cls_attention)  # (B, N)
        if num_important == budget:
            return by_attention[:, :budget]
        rest = by_attention[:, num_important:]
        features = cues.features.take_along_dim(rest.unsqueeze(2), dim=1)  # (B, R, C)
        unit, num_diverse = unit_vectors(features), budget - num_important
        if fits_gram(rest.shape[1]):
            diverse = remove_duplicates(gram(unit), num_diverse)
        else:
            diverse = _remove_duplicates_by_rows(unit, num_diverse)
        return torch.cat([by_attention[:, :num_important], rest.gather(1, diverse)], dim=1)


def remove_duplicates(cosine: Tensor, budget: int) -> Tensor:
    """Drop the most duplicated tokens, a few per round, until ``budget`` are left: (B, R, R) -> (B, budget) int64."""
    if (found := compiled("remove_duplicates", cosine, budget, REMOVED_PER_ROUND)) is not None:
        return found

    def duplication(first: Tensor, second: Tensor) -> Tensor:
        pairs = first.unsqueeze(2) * cosine.shape[1] + second.unsqueeze(1)  # (B, R / 2, R / 2) into the flat matrix
        return cosine.flatten(1).gather(1, pairs.flatten(1)).view_as(pairs).amax(dim=2)

    pool = torch.arange(cosine.shape[1], device=cosine.device).repeat(len(cosine), 1)
    return _rounds(duplication, pool, budget)


def _remove_duplicates_by_rows(unit: Tensor, budget: int) -> Tensor:
    """The same choice from unit vectors (B, R, C), whose cosines are computed when a round asks for them."""
    pool = torch.arange(unit.shape[1], device=unit.device).repeat(len(unit), 1)
    if on_cpu(unit):
        tiles = [NearestNeighbours(tile) for tile in unit]
        return torch.cat([_rounds(near.cosine, tile, budget) for near, tile in zip(tiles, pool.split(1), strict=True)])

    def duplication(first: Tensor, second: Tensor) -> Tensor:
        others = unit.take_along_dim(second.unsqueeze(2), dim=1).mT  # (B, C, R / 2)
        parts = [unit.take_along_dim(part.unsqueeze(2), dim=1) for part in first.split(ROWS_AT_ONCE, dim=1)]
        return torch.cat([(part @ others).amax(dim=2) for part in parts], dim=1)

    return _rounds(duplication, pool, budget)


def _rounds(duplication: Callable[[Tensor, Tensor], Tensor], pool: Tensor, budget: int) -> Tensor:
    """Remove tokens from the pool (B, R) until ``budget`` are left: -> (B, budget).

    Args:
        duplication: from both halves of the pool, (B, R / 2) each, to how similar the most similar token of the second
            is to each token of the first, (B, R / 2).
        pool: token indices.
        budget: how many are left.
    """
    while pool.shape[1] > budget:
        first, second = pool[:, 0::2], pool[:, 1::2]
        removed = min(REMOVED_PER_ROUND, pool.shape[1] - budget)
        by_duplication = duplication(first, second).argsort(dim=1, descending=True, stable=True)
        # The survivors stay in this order, which decides the halves of the next round.
        pool = torch.cat([first.gather(1, by_duplication[:, removed:]), second], dim=1)
    return pool
