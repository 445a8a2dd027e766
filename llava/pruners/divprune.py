"""DivPrune: Diversity-based Visual Token Pruning (CVPR 2025), https://arxiv.org/abs/2503.02175."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from llava.pruners.base import Pruner, VisualCues
from llava.pruners.search.device import compiled, on_cpu
from llava.pruners.search.products import directions, fits_gram, gram, largest_product, product_row
from llava.pruners.search.rows import ProductRows


@dataclass(frozen=True)
class DivPrune(Pruner):
    """Keep the tokens that lie farthest apart (greedy max-min diversity).

    Starts from the token farthest from its nearest neighbour, then repeatedly adds the token farthest from everything
    kept so far, by cosine distance of the projected tokens.
    """

    needs = frozenset({"embeds"})

    def select(self, cues: VisualCues, budget: int) -> Tensor:
        tokens, scale = directions(cues.embeds)
        if not fits_gram(tokens.shape[1]):
            return _select_by_rows(tokens, scale, budget)
        distance = gram(tokens, scale).neg_().add_(1)  # (B, N, N)
        itself = distance.diagonal(dim1=1, dim2=2)
        itself.fill_(torch.inf)
        gap = distance.amin(dim=1)  # (B, N) to the nearest other token
        itself.fill_(-torch.inf)  # a kept token is never the farthest again

        return farthest_points(distance, gap.argmax(dim=1, keepdim=True), budget)


def farthest_points(distance: Tensor, first: Tensor, budget: int) -> Tensor:
    """Add the token farthest from all picks before it until there are ``budget``, -> (B, budget) int64, distinct.

    Args:
        distance: (B, N, N), -inf on the diagonal.
        first: (B, 1) the picks to start from.
        budget: number of picks.
    """
    if (found := compiled("farthest_points", distance, first, budget)) is not None:
        return found

    def row(pick: Tensor) -> Tensor:
        return distance.gather(1, pick.unsqueeze(2).expand(-1, 1, distance.shape[2])).squeeze(1)  # (B, N)

    return _search(row, first, budget)


def _search(row: Callable[[Tensor], Tensor], first: Tensor, budget: int) -> Tensor:
    """As ``farthest_points``, with a function from a pick (B, 1) to its row of distances (B, N)."""
    picks = [first]
    gap = None  # (B, N) to the nearest pick
    while len(picks) < budget:
        to_last = row(picks[-1])
        gap = to_last if gap is None else torch.minimum(gap, to_last, out=gap)
        picks.append(gap.argmax(dim=1, keepdim=True))
    return torch.cat(picks, dim=1)


def _select_by_rows(tokens: Tensor, scale: Tensor, budget: int) -> Tensor:
    """The same choice over rows of distances that are computed when a pick asks for them."""
    gap = 1 - largest_product(tokens, scale)  # (B, N) to the nearest other token
    if on_cpu(tokens):
        tiles = zip(tokens, scale, gap, strict=True)
        return torch.stack([torch.tensor(_farthest_points_by_rows(*tile, budget)) for tile in tiles])

    def row(pick: Tensor) -> Tensor:
        return (1 - product_row(tokens, scale, pick)).scatter_(1, pick, -torch.inf)

    return _search(row, gap.argmax(dim=1, keepdim=True), budget)


def _farthest_points_by_rows(tokens: Tensor, scale: Tensor, gap: Tensor, budget: int) -> list[int]:
    """The picks of one tile on the CPU: (N, D), (N,), (N,) to the nearest other token."""
    rows = ProductRows(tokens, scale, budget)
    picks = [gap.argmax().item()]
    nearest = torch.full_like(gap, torch.inf)  # to the nearest pick
    while len(picks) < budget:
        row = rows.take(picks[-1], promise=gap)[: len(gap)]
        gap = torch.minimum(nearest, 1 - row, out=nearest)
        gap[picks[-1]] = -torch.inf
        picks.append(gap.argmax().item())
    return picks
