"""Greedy search for tokens that lie far apart (max-min diversity) by cosine distance."""

from collections.abc import Callable

import torch
from torch import Tensor

from llava.pruners.search.device import compiled, on_cpu, one_operator
from llava.pruners.search.products import directions, fits_gram, gram, largest_product, product_row
from llava.pruners.search.rows import ProductRows


def max_min(tokens: Tensor, budget: int) -> Tensor:
    """Start from the token farthest from its nearest neighbour, then add the one farthest from all picks before it.

    Args:
        tokens: (B, N, D), of any length, values possibly not finite.
        budget: number of tokens to choose, 0 < budget < N.

    Returns:
        (B, budget) int64, distinct; ties go to the lower index.
    """
    tokens, scale = directions(tokens)
    if fits_gram(tokens.shape[1]):
        cosine = gram(tokens, scale)  # (B, N, N)
        distance = cosine.neg_().add_(1) if on_cpu(tokens) else 1 - cosine  # in place is faster there, and two launches
        itself = distance.diagonal(dim1=1, dim2=2)
        itself.fill_(torch.inf)
        gap = distance.amin(dim=1)  # (B, N) to the nearest other token
        itself.fill_(-torch.inf)  # a kept token is never the farthest again
        return farthest_points(distance, gap.argmax(dim=1, keepdim=True), budget)
    gap = 1 - largest_product(tokens, scale)
    first = gap.argmax(dim=1, keepdim=True)  # (B, 1)
    if on_cpu(tokens):
        rows = [_tile_row(*tile, budget) for tile in zip(tokens, scale, gap, strict=True)]
        return torch.cat([_search(row, pick, budget) for row, pick in zip(rows, first.split(1), strict=True)])

    def row(pick: Tensor, gap: Tensor | None) -> Tensor:
        return (1 - product_row(tokens, scale, pick)).scatter_(1, pick, -torch.inf)

    return _search(row, first, budget)


@one_operator(lambda distance, first, budget: first.new_empty(len(first), budget))
def farthest_points(distance: Tensor, first: Tensor, budget: int) -> Tensor:
    """The search over a whole matrix, -> (B, budget) int64, distinct.

    Args:
        distance: (B, N, N), -inf on the diagonal.
        first: (B, 1) the picks to start from.
        budget: number of picks.
    """
    if (picks := compiled("farthest_points", distance, first, budget)) is not None:
        return picks

    def row(pick: Tensor, gap: Tensor | None) -> Tensor:
        return distance.gather(1, pick.unsqueeze(2).expand(-1, 1, distance.shape[2])).squeeze(1)

    return _search(row, first, budget)


def _search(row: Callable[[Tensor, Tensor | None], Tensor], first: Tensor, budget: int) -> Tensor:
    """As ``farthest_points``.

    Args:
        row: from a pick (B, 1) and the gap of every token to the nearest pick before it (B, N), None at the first, to
            the pick's distances (B, N), -inf to itself.
        first: (B, 1) the picks to start from.
        budget: number of picks.
    """
    picks = [first]
    gap = None
    while len(picks) < budget:
        to_last = row(picks[-1], gap)
        gap = to_last if gap is None else torch.minimum(gap, to_last, out=gap)
        picks.append(gap.argmax(dim=1, keepdim=True))
    return torch.cat(picks, dim=1)


def _tile_row(
    tokens: Tensor, scale: Tensor, isolation: Tensor, budget: int
) -> Callable[[Tensor, Tensor | None], Tensor]:
    """Rows of one tile on the CPU, computed as picks ask for them: (N, D), (N,), (N,) gaps to the nearest other."""
    rows = ProductRows(tokens, scale, budget)

    def row(pick: Tensor, gap: Tensor | None) -> Tensor:
        to_pick = 1 - rows.take(pick.item(), promise=isolation if gap is None else gap[0])[: len(scale)]
        to_pick[pick.item()] = -torch.inf
        return to_pick.unsqueeze(0)

    return row
