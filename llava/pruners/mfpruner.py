"""MFPruner: multi-cue fusion by voting, https://github.com/dluo112/MFPruner."""

from dataclasses import dataclass

import torch
from torch import Tensor

from llava.pruners.base import Pruner, VisualCues
from llava.pruners.functional import image_max, image_min, rank
from llava.pruners.search.products import directions

RULES = ("paper", "qwen_release")


@dataclass(frozen=True)
class MFPruner(Pruner):
    """Keep the tokens that two of three cues nominate: attention, dissimilarity, relevance.

    Each cue nominates as many tokens as are kept. Tokens with three votes go first, then those with two, then the
    rest, each by descending sum of the cues. Without text, the other two cues vote.

    Args:
        cues: "paper" for that, or "qwen_release" for the rule of the method's code for Qwen2.5-VL: attention and
            dissimilarity alone vote, and the tokens without two votes are taken by relevance, which is the cosine to
            the prompt's text there (by attention without text); ``keep_ratio`` is cut to whole tokens as there.
            Meant for ``llava.pruning`` on Qwen; the relevance of LLaVA's CLIP is a negated cosine.

    Raises:
        ValueError: for an unknown ``cues``.
    """

    cues: str = "paper"

    needs = frozenset({"embeds", "cls_attention", "relevance"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cues not in RULES:
            raise ValueError(f"cues must be {' or '.join(RULES)}, not {self.cues!r}")

    def _share(self, num_tokens: int) -> int:
        """``keep_ratio`` of so many tokens, rounded; with "qwen_release" cut to whole ones."""
        if self.cues == "paper":
            return super()._share(num_tokens)
        prune_ratio = 1 - self.keep_ratio  # rounding as in the release, to which this is given
        return int(num_tokens * (1 - prune_ratio))

    def select(self, cues: VisualCues, budget: int) -> Tensor:
        if self.cues == "qwen_release":
            votes = _votes([cues.cls_attention, dissimilarity(cues.embeds)], budget)
            rest = cues.cls_attention if cues.relevance is None else cues.relevance
            return rank(rest, tier=votes == 2)[:, :budget]
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
