"""Greedy search for the most likely subset of a determinantal point process."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from llava.pruners.search.device import compiled, on_cpu, one_operator
from llava.pruners.search.products import ALIGNMENT, factored, fits_gram, gram, measured, product_row
from llava.pruners.search.rows import ProductRows

SMALLEST_GAIN = 1e-10
SPANNED = 1e-5  # the share of a token's own volume that its gain keeps by rounding alone, once the others span it
SHARE_BY_ROWS = 3  # up to a third of the tokens, the rows of the kernel that are visited cost less than half of it
FIRST = torch.finfo(torch.float32).max  # beyond any quality


def greedy_map(tokens: Tensor, quality: Tensor, budget: int) -> Tensor:
    """Choose the tokens whose part of the kernel q[i] cos(i, j) q[j] has the largest determinant, greedily.

    Where no token enlarges it any more, because the chosen ones already span the others, the rest is filled by
    descending quality.

    Args:
        tokens: (B, N, D), of any length.
        quality: (B, N) q, finite and not negative.
        budget: number of tokens to choose, 0 < budget < N.

    Returns:
        (B, budget) int64, distinct, in no order.
    """
    num_tokens = quality.shape[1]
    few = SHARE_BY_ROWS * budget <= num_tokens or not fits_gram(num_tokens)
    search = _search_by_rows if few and on_cpu(tokens) else _search_gram
    return search(tokens, quality, budget).argsort(dim=1, descending=True, stable=True)[:, :budget]


def _search_gram(tokens: Tensor, quality: Tensor, budget: int) -> Tensor:
    """Greedy search over the whole kernel, all tiles in step and nothing read back.

    Returns:
        (B, N') the quality, with ``FIRST`` added for the chosen tokens and zeros behind the N of the others.
    """
    num_tokens = quality.shape[1]
    # Zero tokens gain nothing and are never chosen; they align the rows that the search multiplies.
    if rest := -num_tokens % ALIGNMENT:
        tokens, quality = pad(tokens, (0, 0, 0, rest)), pad(quality, (0, rest))
    tokens, weight, volume = _weighted(tokens, quality)
    if fits_gram(num_tokens):
        kernel = gram(tokens, weight)
        kernel.diagonal(dim1=1, dim2=2).copy_(volume)
        picks, gains = pivots(kernel, budget)
    else:
        picks, gains = _pivots(lambda pick: product_row(tokens, weight, pick).unsqueeze(1), volume, budget)
    # Gains only shrink: once all are -inf or NaN, picks may repeat, and none of them counts.
    useful = gains > _floor(volume).gather(1, picks)  # (B, budget)
    return quality.scatter_add(1, picks, useful * FIRST)


def _weighted(tokens: Tensor, quality: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    """Tokens (B, N, D') and weights (B, N) whose products are the kernel, and the volume (B, N) of every token alone.

    A weight of None has been multiplied into the tokens, which takes fewer operations and more work.
    """
    if on_cpu(tokens):
        tokens, scale = factored(tokens)
        return tokens, scale * quality, quality.square().where(scale > 0, 0.0)
    tokens, length = measured(tokens)
    directed = quality.unsqueeze(2).masked_fill(length == torch.inf, 0.0)  # (B, N, 1)
    return tokens.mul_(directed / length), None, directed.squeeze(2).square()


def _empty_pivots(kernel: Tensor, budget: int) -> tuple[Tensor, Tensor]:
    return kernel.new_empty(len(kernel), budget, dtype=torch.int64), kernel.new_empty(len(kernel), budget)


@one_operator(_empty_pivots)
def pivots(kernel: Tensor, budget: int) -> tuple[Tensor, Tensor]:
    """The order in which tokens are added and the factor by which each enlarges the determinant, both (B, budget).

    The incremental Cholesky factor makes step t cost O(N t): Chen et al., https://arxiv.org/abs/1709.05135.
    """
    if (found := compiled("greedy_map", kernel, budget)) is not None:
        return found

    def row(pick: Tensor) -> Tensor:
        return kernel.gather(1, pick.unsqueeze(2).expand(-1, 1, kernel.shape[2]))  # (B, 1, N)

    return _pivots(row, kernel.diagonal(dim1=1, dim2=2), budget)


def _pivots(row_of: Callable[[Tensor], Tensor], volume: Tensor, budget: int) -> tuple[Tensor, Tensor]:
    """As ``pivots``, with the diagonal (B, N) and a function from a pick (B, 1) to its row (B, 1, N)."""
    batch, num_tokens = volume.shape
    factor = volume.new_empty(batch, budget, num_tokens)
    gain = volume.clone()  # (B, N) of every token, were it added next
    picks, gains = [], []
    for step in range(budget):
        best, pick = gain.max(dim=1, keepdim=True)  # (B, 1)
        done = factor[:, :step]  # (B, step, N)
        of_pick = done.gather(2, pick.unsqueeze(1).expand(-1, step, 1)).mT  # (B, 1, step)
        row = torch.baddbmm(row_of(pick), of_pick, done, alpha=-1)
        factor[:, step : step + 1] = row.div_(best.sqrt().unsqueeze(2))
        gain.addcmul_(factor[:, step], factor[:, step], value=-1).scatter_(1, pick, -torch.inf)
        picks.append(pick)
        gains.append(best)
    return torch.cat(picks, dim=1), torch.cat(gains, dim=1)


def _search_by_rows(tokens: Tensor, quality: Tensor, budget: int) -> Tensor:
    """The same search, tile by tile on the CPU, over the few rows of the kernel that it visits."""
    tokens, weight, volume = _weighted(tokens, quality)
    assert weight is not None  # on the CPU it is apart
    quality = quality.clone()
    for tile, of_tile in enumerate(quality):
        of_tile[_pivots_by_rows(tokens[tile], weight[tile], volume[tile], budget)] = FIRST
    return quality


def _pivots_by_rows(tokens: Tensor, weight: Tensor, volume: Tensor, budget: int) -> list[int]:
    """The tokens of one tile in the order in which they are added, as long as they enlarge the determinant."""
    rest = -len(volume) % ALIGNMENT
    gain = pad(volume, (0, rest), value=-torch.inf)  # (N',)
    floor = _floor(volume).tolist()
    factor = gain.new_empty(budget, len(gain))
    kernel = ProductRows(tokens, weight, budget)
    picks: list[int] = []
    for _ in range(budget):
        pick = int(gain.argmax())
        best = float(gain[pick])
        gain[pick] = -torch.inf
        if best <= floor[pick]:
            continue
        done, row, scale = factor[: len(picks)], factor[len(picks)], best**-0.5
        torch.addmv(kernel.take(pick, gain), done.T, done[:, pick].contiguous(), alpha=-scale, beta=scale, out=row)
        gain.addcmul_(row, row, value=-1)
        picks.append(pick)
    return picks


def _floor(volume: Tensor) -> Tensor:
    """The gain up to which a token counts as one that the chosen tokens span."""
    return (SPANNED * volume).clamp_min(SMALLEST_GAIN)
