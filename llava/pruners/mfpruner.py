"""MFPruner: multi-cue fusion by voting, https://github.com/dluo112/MFPruner."""

from dataclasses import dataclass

import torch
from torch import Tensor

from llava.pruners.base import Pruner, VisualCues
from llava.pruners.functional import directions, image_max, image_min, rank, unit_vectors


@dataclass(frozen=True)
class MFPruner(Pruner):
    """Keep the tokens that two of three cues nominate: attention, dissimilarity, relevance.

    Each cue nominates as many tokens as are kept. Tokens with three votes go first, then those with two, then the
    rest, each by descending sum of the cues. Without text, the other two cues vote.
    """

    needs = frozenset({"embeds", "cls_attention", "relevance"})

    def select(self, cues: VisualCues, budget: int) -> Tensor:
        scores = [_min_max(cues.cls_attention, cues.image_index), dissimilarity(cues.embeds)]
        if cues.relevance is not None:
            scores.append(_min_max(cues.relevance, cues.image_index))
        votes = _votes(scores, budget)
        return rank(sum(scores), tier=votes.where(votes >= 2, 0))[:, :budget]


def dissimilarity(tokens: Tensor) -> Tensor:
    """One minus the mean cosine of each token with the others, their sum divided by N: (B, N, D) -> (B, N)."""
    tokens, scale = directions(tokens)
    total = scale.unsqueeze(1) @ tokens  # (B, 1, D) of all unit vectors
    with_all = (total @ tokens.mT).squeeze(1) * scale  # (B, N)
    with_itself = (scale > 0).float()
    return 1 - (with_all - with_itself) / tokens.shape[1]


def select_qwen_release(
    image_embeds: Tensor, received_attention: Tensor, text_rows: Tensor, prune_ratio: float
) -> Tensor:
    """The choice of the method's Qwen2.5-VL release: attention and dissimilarity vote, similarity to the text fills.

    Args:
        image_embeds: (N, D) merged image tokens in raster order, over all images.
        received_attention: (N,) attention each token receives in the last vision block.
        text_rows: (L, D) input embeddings of everything that is not an image token.
        prune_ratio: share of the tokens removed, in [0, 1]; int(N * (1 - prune_ratio)) are kept.

    Returns:
        (1, T) int64, ascending.

    Raises:
        ValueError: when prune_ratio is out of range.
    """
    if not 0 <= prune_ratio <= 1:
        raise ValueError(f"prune_ratio must be in [0, 1], not {prune_ratio!r}")
    tokens, attention = image_embeds.float().unsqueeze(0), received_attention.float().unsqueeze(0)
    budget = int(len(image_embeds) * (1 - prune_ratio))
    closeness = unit_vectors(tokens) @ unit_vectors(text_rows.float().mean(dim=0))  # (1, N)
    votes = _votes([attention, dissimilarity(tokens)], budget)
    return rank(closeness, tier=votes == 2)[:, :budget].sort(dim=1).values


def _votes(scores: list[Tensor], budget: int) -> Tensor:
    """How many of the scores have each token among their best ``budget``, (B, N) int64."""
    nominated = rank(torch.stack(scores, dim=1))[..., :budget].flatten(1)  # (B, cues * budget)
    return torch.zeros_like(scores[0], dtype=torch.long).scatter_add_(1, nominated, torch.ones_like(nominated))


def _min_max(values: Tensor, image_index: Tensor | None) -> Tensor:
    """Spread the finite values of each image over (0, 1]; the others become 0, (B, N) -> (B, N)."""
    finite = values.isfinite()
    low = image_min(values.where(finite, torch.inf), image_index)
    high = image_max(values.where(finite, -torch.inf), image_index)
    return ((values - low + 1e-6) / (high - low + 1e-6)).where(finite, 0.0)
