"""Methods as their papers define them, written plainly: what the pruners are compared with.

Every similarity comes from a full matrix product of unit vectors, and every step looks again at everything it needs.
Nothing is guarded against degenerate input. Each function reads the tiles of one image: ``embeds`` (B, N, D) or
``features`` (B, N, C), ``cls_attention`` and ``relevance`` (B, N). It keeps ``budget`` tokens of each tile and returns
them as (B, budget) int64, ascending, like a pruner.
"""

import torch
from torch import Tensor
from torch.nn.functional import conv2d, normalize, one_hot, pad

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


def scope(features: Tensor, cls_attention: Tensor, budget: int, alpha: float = 1.0) -> Tensor:
    """Coverage of all tokens, weighted by the candidate's attention, https://arxiv.org/abs/2510.24214."""
    unit = normalize(features, dim=-1)
    return _cover(unit @ unit.mT, cls_attention**alpha, budget)


def mmtok(
    features: Tensor,
    embeds: Tensor,
    text_tokens: Tensor,
    budget: int,
    tau_tv: float = 0.02,
    tau_vv: float = 0.2,
    alpha: float = 0.5,
) -> Tensor:
    """Coverage of words and tokens, https://arxiv.org/abs/2508.18264; ``text_tokens`` (M, D)."""
    unit, projected, words = (normalize(rows, dim=-1) for rows in (features, embeds, text_tokens))
    of_words = (words @ projected.mT / tau_tv).softmax(dim=2) / len(words)  # (B, M, N)
    of_tokens = (unit @ unit.mT / tau_vv).softmax(dim=2) * (alpha / unit.shape[1])  # (B, N, N)
    shares = torch.cat([of_words, of_tokens], dim=1).mT.contiguous()  # (B, N, M + N)
    return _cover(shares, torch.ones_like(shares[..., 0]), budget)


def eadp(
    embeds: Tensor,
    relevance: Tensor,
    joint_embeds: Tensor,
    text_sequence: Tensor,
    budget: int,
    alpha: float = 0.5,
    beta: float = 1.0,
) -> Tensor:
    """Coverage of what matters to the question, https://arxiv.org/abs/2607.02484.

    ``joint_embeds`` (B, N, E), ``text_sequence`` (M, L, E); importance is smoothed where N is that of a square.
    """
    patches, texts = normalize(joint_embeds, dim=-1).unsqueeze(1), normalize(text_sequence, dim=-1)
    of_words = -(texts @ patches.mT)  # (B, M, L, N)
    share = (100 * of_words).softmax(dim=3)
    entropy = -(share * (share + 1e-12).log()).sum(dim=3)  # (B, M, L)
    clearest = entropy.topk(max(1, int(0.2 * entropy.shape[2])), largest=False)
    weight = (-clearest.values / (0.01 + 1e-6)).softmax(dim=2).unsqueeze(3)
    of_words = (weight * of_words.take_along_dim(clearest.indices.unsqueeze(3), dim=2)).sum(dim=2).mean(dim=1)
    matters = alpha * relevance + (1 - alpha) * of_words  # (B, N)
    matters = (matters - matters.min() + 1e-6) / (matters.max() - matters.min() + 1e-6)
    side = int(matters.shape[1] ** 0.5)
    if side**2 == matters.shape[1]:
        near = torch.tensor([-1.0, 0.0, 1.0], dtype=matters.dtype, device=matters.device)
        kernel = (-(near.square() + near.square().unsqueeze(1)) / 2).exp()
        around = pad(matters.view(-1, 1, side, side), (1, 1, 1, 1), mode="reflect")
        matters = conv2d(around, (kernel / kernel.sum()).view(1, 1, 3, 3)).flatten(1)
    matters = matters**beta
    unit = normalize(embeds, dim=-1)
    benefit = ((unit @ unit.mT).clamp(-1, 1) + 1) / 2 * matters.unsqueeze(1)
    return _cover(benefit, torch.ones_like(matters), budget)


def _cover(benefit: Tensor, weight: Tensor, budget: int) -> Tensor:
    """The candidates that add most to the best benefit (B, N, R) of each of R, times a weight (B, N)."""
    tiles = torch.arange(len(benefit), device=benefit.device)
    best = torch.zeros_like(benefit[:, 0])  # (B, R)
    taken = torch.zeros_like(weight)
    added = torch.empty_like(benefit)
    for _ in range(budget):
        torch.sub(benefit, best.unsqueeze(1), out=added)
        gain = added.clamp_(min=0).sum(dim=2) * weight + taken
        pick = gain.argmax(dim=1)  # (B,)
        taken[tiles, pick] = -torch.inf
        best = torch.maximum(best, benefit[tiles, pick])
    return taken.isinf().nonzero()[:, 1].view(len(benefit), budget)
