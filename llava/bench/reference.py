"""The four methods as their papers define them, written plainly: what the pruners are compared with.

Every similarity comes from a full matrix product of unit vectors, and every step looks again at everything it needs.
Nothing is guarded against degenerate input. Each function reads the tiles of one image: ``embeds`` (B, N, D) or
``features`` (B, N, C), ``cls_attention`` and ``relevance`` (B, N). It keeps ``budget`` tokens of each tile and returns
them as (B, budget) int64, ascending, like a pruner.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

REMOVED_PER_ROUND = 8


def cdpruner(embeds: Tensor, relevance: Tensor, budget: int) -> Tensor:
    """Greedy MAP of the DPP conditioned on relevance, https://arxiv.org/abs/2506.10967."""
    quality = (relevance - relevance.min() + 1e-6) / (relevance.max() - relevance.min())
    unit = normalize(embeds, dim=-1)
    kernel = quality.unsqueeze(2) * (unit @ unit.mT) * quality.unsqueeze(1)  # (B, N, N)
    tiles = torch.arange(len(kernel), device=kernel.device)
    gain = kernel.diagonal(dim1=1, dim2=2).clone()  # (B, N)
    factor = torch.zeros(len(kernel), budget, kernel.shape[1], device=kernel.device)
    picks = []
    for step in range(budget):
        pick = gain.argmax(dim=1)  # (B,)
        of_pick = factor[tiles, :step, pick].unsqueeze(1)  # (B, 1, step)
        explained = (of_pick @ factor[:, :step]).squeeze(1)  # (B, N)
        row = (kernel[tiles, pick] - explained) / gain[tiles, pick].sqrt().unsqueeze(1)
        factor[:, step] = row
        gain = gain - row.square()
        gain[tiles, pick] = -torch.inf
        picks.append(pick)
    return torch.stack(picks, dim=1).sort(dim=1).values


def divprune(embeds: Tensor, budget: int) -> Tensor:
    """Max-min diversity by cosine distance, https://arxiv.org/abs/2503.02175."""
    unit = normalize(embeds, dim=-1)
    distance = 1 - unit @ unit.mT  # (B, N, N)
    nearest = distance.topk(2, dim=1, largest=False).values[:, 1]  # (B, N) the smallest is the token's own
    picks = nearest.argmax(dim=1, keepdim=True)  # (B, 1)
    tiles = torch.arange(len(unit), device=unit.device).unsqueeze(1)
    while picks.shape[1] < budget:
        gap = distance[tiles, picks].amin(dim=1)  # (B, N) to the nearest of all chosen
        gap[tiles, picks] = -torch.inf
        picks = torch.cat([picks, gap.argmax(dim=1, keepdim=True)], dim=1)
    return picks.sort(dim=1).values


def vispruner(features: Tensor, cls_attention: Tensor, budget: int, important_ratio: float = 0.5) -> Tensor:
    """The most attended tokens and the least duplicated others, https://arxiv.org/abs/2412.01818.

    ``important_ratio`` is the share of the kept tokens that attention chooses.
    """
    num_important = int(budget * important_ratio)
    by_attention = cls_attention.argsort(dim=1, descending=True, stable=True)
    important, pool = by_attention[:, :num_important], by_attention[:, num_important:]
    if num_important == budget:
        return important.sort(dim=1).values
    unit = normalize(features, dim=-1)
    tiles = torch.arange(len(unit), device=unit.device).unsqueeze(1)
    while (excess := pool.shape[1] + num_important - budget) > 0:
        first, second = pool[:, 0::2], pool[:, 1::2]
        similarity = unit[tiles, first] @ unit[tiles, second].mT  # (B, R / 2, R / 2)
        by_duplication = similarity.amax(dim=2).argsort(dim=1, descending=True, stable=True)
        survivors = first.take_along_dim(by_duplication[:, min(REMOVED_PER_ROUND, excess) :], dim=1)
        pool = torch.cat([survivors, second], dim=1)
    return torch.cat([important, pool], dim=1).sort(dim=1).values


def mfpruner(embeds: Tensor, cls_attention: Tensor, relevance: Tensor, budget: int) -> Tensor:
    """Two votes of three cues, https://github.com/dluo112/MFPruner."""

    def min_max(cue: Tensor) -> Tensor:
        return (cue - cue.min() + 1e-6) / (cue.max() - cue.min() + 1e-6)

    unit = normalize(embeds, dim=-1)
    similarity = unit @ unit.mT  # (B, N, N)
    similarity.diagonal(dim1=1, dim2=2).zero_()
    cues = [min_max(cls_attention), 1 - similarity.mean(dim=2), min_max(relevance)]
    nominated = [cue.topk(budget, dim=1).indices for cue in cues]
    votes = sum(one_hot(best, embeds.shape[1]).sum(dim=1) for best in nominated)  # (B, N)
    # In double precision, where whole votes leave the sum of the cues, at most 4, its last bit.
    score = votes.where(votes >= 2, 0) * 8.0 + sum(cues).double()
    return score.topk(budget, dim=1).indices.sort(dim=1).values
