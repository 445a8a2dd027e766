"""Greedy search for tokens that lie far apart (max-min diversity) by cosine distance."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from llava.pruners.search.device import compiled, on_cpu, one_operator
from llava.pruners.search.products import directions, fits_gram, gram, largest_product, product_row
from llava.pruners.search.rows import ProductRows


def max_min(tokens: Tensor, budget: int, weight: Tensor | None = None, first: Tensor | None = None) -> Tensor:
    """Start from the token farthest from its nearest neighbour, then add the one farthest from all picks before it.

    Args:
        tokens: (B, N, D), of any length, values possibly not finite.
        budget: number of tokens to choose, 0 < budget < N.
        weight: (B, N) by which a token's distance to the picks counts, finite and not negative; None is 1 of each.
        first: (B, 1) int64, the picks to start from instead.

    Returns:
        (B, budget) int64, distinct, in the order of the search; ties go to the lower index.
    """
    tokens, scale = directions(tokens)
    if fits_gram(tokens.shape[1]):
        cosine = gram(tokens, scale)  # (B, N, N)
        distance = cosine.neg_().add_(1) if on_cpu(tokens) else 1 - cosine  # in place is faster there, and two launches
        itself = distance.diagonal(dim1=1, dim2=2)
        if first is None:
            itself.fill_(torch.inf)
            first = distance.amin(dim=1).argmax(dim=1, keepdim=True)  # of the gaps to the nearest other token
        itself.fill_(-torch.inf)  # a kept token is never the farthest again
        return farthest_points(distance, first, budget, weight)
    isolation = 1 - largest_product(tokens, scale) if first is None else tokens.new_zeros(tokens.shape[:2])
    first = isolation.argmax(dim=1, keepdim=True) if first is None else first  # (B, 1)
    if scale is not None:  # on the CPU
        rows = [_tile_row(*tile, budget) for tile in zip(tokens, scale, isolation, strict=True)]
        weights: Sequence[Tensor | None] = [None] * len(rows) if weight is None else weight.split(1)
        found = [_search(row, pick, budget, own) for row, pick, own in zip(rows, first.split(1), weights, strict=True)]
        return torch.cat(found)

    def row(pick: Tensor, promise: Tensor | None) -> Tensor:
        return (1 - product_row(tokens, scale, pick)).scatter_(1, pick, -torch.inf)

    return _search(row, first, budget, weight)


@one_operator(lambda distance, first, budget, weight=None: first.new_empty(len(first), budget))
def farthest_points(distance: Tensor, first: Tensor, budget: int, weight: Tensor | None = None) -> Tensor:
    """The search over a whole matrix, -> (B, budget) int64, distinct.

    Args:
        distance: (B, N, N), -inf on the diagonal.
        first: (B, 1) the picks to start from.
        budget: number of picks.
        weight: (B, N) as in ``max_min``.
    """
    if (picks := compiled("farthest_points", distance, first, budget, weight)) is not None:
        return picks

    def row(pick: Tensor, promise: Tensor | None) -> Tensor:
        return distance.gather(1, pick.unsqueeze(2).expand(-1, 1, distance.shape[2])).squeeze(1)

    return _search(row, first, budget, weight)


def _search(
    row: Callable[[Tensor, Tensor | None], Tensor], first: Tensor, budget: int, weight: Tensor | None
) -> Tensor:
    """As ``farthest_points``.

    Args:
        row: from a pick (B, 1) and how much every token promised when it was picked (B, N), None at the first, to the
            pick's distances (B, N), -inf to itself.
        first: (B, 1) the picks to start from.
        budget: number of picks.
        weight: (B, N) as in ``max_min``.
    """
    picks = [first]
    gap = promise = None  # (B, N) of every token to the nearest pick, and that by its weight
    while len(picks) < budget:
        to_last = row(picks[-1], promise)
        gap = to_last if gap is None else torch.minimum(gap, to_last, out=gap)
        promise = gap if weight is None else (gap * weight).masked_fill_(gap == -torch.inf, -torch.inf)
        picks.append(promise.argmax(dim=1, keepdim=True))
    return torch.cat(picks, dim=1)


def _tile_row(
    tokens: Tensor, scale: Tensor, isolation: Tensor, budget: int
) -> Callable[[Tensor, Tensor | None], Tensor]:
    """Rows of one tile on the CPU, computed as picks ask for them: (N, D), (N,), (N,) gaps to the nearest other."""
    rows = ProductRows(tokens, scale, budget)

    def row(pick: Tensor, promise: Tensor | None) -> Tensor:
        place = int(pick)
        to_pick = 1 - rows.take(place, promise=isolation if promise is None else promise[0])[: len(scale)]
        to_pick[place] = -torch.inf
        return to_pick.unsqueeze(0)

    return row
