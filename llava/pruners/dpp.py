"""Greedy search for the most likely subset of a determinantal point process."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import pad

from llava.pruners.functional import ALIGNMENT, directions, gram, kernels_for, rank

SMALLEST_GAIN = 1e-10
SPANNED = 1e-5  # the share of a token's own volume that its gain keeps by rounding alone, once the others span it
SHARE_BY_ROWS = 3  # up to a third of the tokens, the rows of the kernel that are visited cost less than half of it


def most_likely_subset(tokens: Tensor, quality: Tensor, budget: int) -> Tensor:
    """Choose the tokens whose part of the kernel q[i] cos(i, j) q[j] has the largest determinant, greedily.

    Where no token enlarges it any more, because the chosen ones already span the others, the rest is filled by
    descending quality.

    Args:
        tokens: (B, N, D), of any length.
        quality: (B, N) q, finite and not negative.
        budget: number of tokens to choose, 0 < budget < N.

    Returns:
        (B, budget) int64, distinct.
    """
    tokens, scale = directions(tokens)
    volume = quality.square().where(scale > 0, 0.0)  # (B, N) of every token alone
    by_rows = tokens.device.type == "cpu" and SHARE_BY_ROWS * budget <= quality.shape[1]
    search = _search_by_rows if by_rows else _search_gram
    chosen = search(tokens, scale * quality, volume, budget)  # (B, N)
    return rank(quality, tier=chosen)[:, :budget]


def _search_gram(tokens: Tensor, weight: Tensor, volume: Tensor, budget: int) -> Tensor:
    """Greedy search over the whole kernel, all tiles in step and nothing read back: 1 for the chosen tokens, (B, N)."""
    num_tokens = volume.shape[1]
    # Zero tokens gain nothing and are never chosen; they align the rows that the search multiplies.
    if rest := -num_tokens % ALIGNMENT:
        tokens, weight, volume = pad(tokens, (0, 0, 0, rest)), pad(weight, (0, rest)), pad(volume, (0, rest))
    kernel = gram(tokens, weight)
    kernel.diagonal(dim1=1, dim2=2).copy_(volume)
    picks, gains = greedy_map(kernel, budget)
    # Gains only shrink: once all are -inf or NaN, picks may repeat, and none of them counts.
    useful = (gains > _floor(volume).gather(1, picks)).long()  # (B, budget)
    return torch.zeros_like(volume, dtype=torch.long).scatter_add_(1, picks, useful)[:, :num_tokens]


def greedy_map(kernel: Tensor, budget: int) -> tuple[Tensor, Tensor]:
    """The order in which tokens are added and the factor by which each enlarges the determinant, both (B, budget).

    The incremental Cholesky factor makes step t cost O(N t): Chen et al., https://arxiv.org/abs/1709.05135.
    """
    if kernels := kernels_for(kernel):
        return kernels.greedy_map(kernel, budget)
    batch, num_tokens, _ = kernel.shape
    factor = kernel.new_empty(batch, budget, num_tokens)
    gain = kernel.diagonal(dim1=1, dim2=2).clone()  # (B, N) of every token, were it added next
    picks, gains = [], []
    for step in range(budget):
        best, pick = gain.max(dim=1, keepdim=True)  # (B, 1)
        done = factor[:, :step]  # (B, step, N)
        of_pick = done.gather(2, pick.unsqueeze(1).expand(-1, step, 1)).mT  # (B, 1, step)
        row = kernel.gather(1, pick.unsqueeze(2).expand(-1, 1, num_tokens))  # (B, 1, N)
        row = torch.baddbmm(row, of_pick, done, alpha=-1)
        torch.div(row, best.sqrt().unsqueeze(2), out=factor[:, step : step + 1])
        gain.addcmul_(factor[:, step], factor[:, step], value=-1).scatter_(1, pick, -torch.inf)
        picks.append(pick)
        gains.append(best)
    return torch.cat(picks, dim=1), torch.cat(gains, dim=1)


def _search_by_rows(tokens: Tensor, weight: Tensor, volume: Tensor, budget: int) -> Tensor:
    """The same search, tile by tile on the CPU, over the few rows of the kernel that it visits."""
    chosen = torch.zeros_like(volume, dtype=torch.long)
    for tile, tile_chosen in enumerate(chosen):
        tile_chosen[_greedy_map_by_rows(tokens[tile], weight[tile], volume[tile], budget)] = 1
    return chosen


def _greedy_map_by_rows(tokens: Tensor, weight: Tensor, volume: Tensor, budget: int) -> list[int]:
    """The tokens of one tile in the order in which they are added, as long as they enlarge the determinant."""
    rest = -len(volume) % ALIGNMENT
    gain = pad(volume, (0, rest), value=-torch.inf)  # (N',)
    floor = _floor(volume).tolist()
    factor = gain.new_empty(budget, len(gain))
    kernel: dict[int, Tensor] = {}  # rows, (N',) each
    picks: list[int] = []
    for _ in range(budget):
        pick = gain.argmax().item()
        best = gain[pick].item()
        gain[pick] = -torch.inf
        if best <= floor[pick]:
            continue
        if pick not in kernel:
            block = _likely_next(gain, pick, kernel, count=max(24, budget // 4))
            products = tokens.index_select(0, block) @ tokens.T  # (block, N)
            products *= weight[block].unsqueeze(1) * weight
            kernel.update(zip(block.tolist(), pad(products, (0, rest)), strict=True))
        done, row, scale = factor[: len(picks)], factor[len(picks)], best**-0.5
        torch.addmv(kernel[pick], done.T, done[:, pick].contiguous(), alpha=-scale, beta=scale, out=row)
        gain.addcmul_(row, row, value=-1)
        picks.append(pick)
    return picks


def _floor(volume: Tensor) -> Tensor:
    """The gain up to which a token counts as one that the chosen tokens span."""
    return (SPANNED * volume).clamp_min(SMALLEST_GAIN)


def _likely_next(gain: Tensor, pick: int, known: Iterable[int], count: int) -> Tensor:
    """The pick and the tokens that now gain most, without those known: at most ``count`` of them, whose rows are best
    computed together because a product of many rows takes little more time than one of a few."""
    gain = gain.index_fill(0, torch.tensor(list(known), dtype=torch.long), -torch.inf)
    gain[pick] = torch.inf
    return gain.topk(min(count, int((gain > 0).sum()))).indices
