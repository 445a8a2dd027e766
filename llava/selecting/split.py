"""A budget of several tiles, split among them by how much each has to say."""

import math
from collections.abc import Sequence

from torch import Tensor


def quotas(importance: Tensor, budget: int) -> list[int]:
    """How many tokens of each tile are kept, in proportion to its importance; the device is waited for.

    A tile has its share of the budget rounded down, at least one token and at most all of its own. What is missing then
    goes one by one to the tile that is furthest below its share, the first of several; what is over, where tiles of
    next to no importance have one each, is taken one by one from the tile that is furthest above it.

    Args:
        importance: (tiles, N) of every token; what is negative or not finite counts as zero.
        budget: of all tiles together, tiles to tiles * N.

    Raises:
        ValueError: a budget beyond these bounds.
    """
    tiles, tokens = importance.shape
    if not tiles <= budget <= tiles * tokens:
        raise ValueError(f"{budget} tokens cannot be split among {tiles} tiles of {tokens}, of which each keeps one")
    finite = importance.double().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).clamp_min(0)
    return quotas_of(finite.sum(dim=1).tolist(), tokens, budget)


def quotas_of(weights: Sequence[float], tokens: int, budget: int) -> list[int]:
    """``quotas`` of tiles of ``tokens`` tokens, whose importance sums to ``weights``; of none at all, even ones."""
    total = math.fsum(weights)
    shares = [(weight / total if total > 0 else 1 / len(weights)) * budget for weight in weights]
    kept = [min(max(math.floor(share), 1), tokens) for share in shares]
    while (missing := budget - sum(kept)) != 0:
        step = 1 if missing > 0 else -1
        room = [tile for tile, quota in enumerate(kept) if 1 <= quota + step <= tokens]
        kept[max(room, key=lambda tile: step * (shares[tile] - kept[tile]))] += step
    return kept
