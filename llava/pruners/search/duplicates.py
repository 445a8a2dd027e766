"""Search for the tokens with the fewest duplicates, by removal in rounds."""

from collections.abc import Callable

import torch
from torch import Tensor

from llava.pruners.search.device import compiled, on_cpu, one_operator
from llava.pruners.search.products import ROWS_AT_ONCE, fits_gram, gram, unit_vectors
from llava.pruners.search.rows import NearestNeighbours

REMOVED_PER_ROUND = 8


def remove_duplicates(tokens: Tensor, budget: int) -> Tensor:
    """Drop the most duplicated tokens, a few per round, until ``budget`` are left.

    Args:
        tokens: (B, R, C), of any length, values possibly not finite. Their order decides the halves of each round.
        budget: number of tokens that are left, 0 < budget < R.

    Returns:
        (B, budget) int64, distinct; of tokens that are duplicated alike, the first goes first.
    """
    unit = unit_vectors(tokens)
    return least_duplicated(gram(unit), budget) if fits_gram(tokens.shape[1]) else _by_rows(unit, budget)


@one_operator(lambda cosine, budget: cosine.new_empty(len(cosine), budget, dtype=torch.int64))
def least_duplicated(cosine: Tensor, budget: int) -> Tensor:
    """The search over a whole matrix, (B, R, R) -> (B, budget) int64."""
    if (found := compiled("remove_duplicates", cosine, budget, REMOVED_PER_ROUND)) is not None:
        return found

    def duplication(first: Tensor, second: Tensor) -> Tensor:
        pairs = first.unsqueeze(2) * cosine.shape[1] + second.unsqueeze(1)  # (B, R / 2, R / 2) into the flat matrix
        return cosine.flatten(1).gather(1, pairs.flatten(1)).view_as(pairs).amax(dim=2)

    pool = torch.arange(cosine.shape[1], device=cosine.device).repeat(len(cosine), 1)
    return _rounds(duplication, pool, budget)


def _by_rows(unit: Tensor, budget: int) -> Tensor:
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
