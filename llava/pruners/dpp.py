"""Greedy search for the most likely subset of a determinantal point process."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from llava.pruners.functional import ALIGNMENT, cosine_similarity, rank

SMALLEST_GAIN = 1e-10


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
    num_tokens = quality.shape[1]
    # Zero tokens gain nothing and are never chosen; they align the rows that the search multiplies.
    if rest := num_tokens % ALIGNMENT:
        tokens, quality = pad(tokens, (0, 0, 0, ALIGNMENT - rest)), pad(quality, (0, ALIGNMENT - rest))
    kernel = cosine_similarity(tokens).mul_(quality.unsqueeze(1)).mul_(quality.unsqueeze(2))  # (B, N, N)
    picks, gains = _greedy_map(kernel, budget)
    # Gains only shrink: from the first one too small, or NaN, on no other counts, and its picks may repeat.
    useful = (gains > SMALLEST_GAIN).long()  # (B, budget)
    chosen = torch.zeros_like(quality, dtype=torch.long).scatter_add_(1, picks, useful)
    return rank(quality[:, :num_tokens], tier=chosen[:, :num_tokens])[:, :budget]


def _greedy_map(kernel: Tensor, budget: int) -> tuple[Tensor, Tensor]:
    """The order in which tokens are added and the factor by which each enlarges the determinant, both (B, budget).

    The incremental Cholesky factor makes step t cost O(N t): Chen et al., https://arxiv.org/abs/1709.05135.
    """
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
