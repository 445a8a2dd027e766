"""MFPruner: multi-cue fusion by voting, https://github.com/dluo112/MFPruner."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import threshold

from llava.pruners.base import Pruner
from llava.pruners.cues import VisualCues
from llava.pruners.functional import min_max, rank
from llava.pruners.search.device import on_cpu
from llava.pruners.search.products import factored, measured

RULES = ("paper", "qwen_release")
VOTE = 2**31  # more than any sum of cues in bits


@dataclass(frozen=True)
class MFPruner(Pruner):
    """Keep the tokens that two of three cues nominate: attention, dissimilarity, relevance.

    Each cue nominates as many tokens as are kept. Tokens with three votes go first, then those with two, then the
    rest, each by descending sum of the cues. Without text, the other two cues vote.

    Args:
        cues: how they vote, "paper" or "qwen_release"; the latter is the method's code for Qwen2.5-VL: attention and
            dissimilarity alone vote, and the tokens without two votes are taken by relevance, which is the cosine to
            the prompt's text there (by attention without text); ``keep_ratio`` is cut to whole tokens as there.
            Meant for ``llava.pruning`` on Qwen; the relevance of LLaVA's CLIP is a negated cosine.

    Raises:
        ValueError: for an unknown ``cues``.
    """

    cues: str = "paper"

    needs = frozenset({"embeds", "cls_attention", "relevance"})
    source = "https://github.com/dluo112/MFPruner"
    licence = "Apache-2.0"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cues not in RULES:
            raise ValueError(f"cues must be {' or '.join(RULES)}, not {self.cues!r}")

    def _share(self, num_tokens: int, keep_ratio: float) -> int:
        """``keep_ratio`` of so many tokens, rounded; with "qwen_release" cut to whole ones."""
        if self.cues == "paper":
            return super()._share(num_tokens, keep_ratio)
        prune_ratio = 1 - keep_ratio  # rounding as in the release, to which this is given
        return int(num_tokens * (1 - prune_ratio))

    def select(self, cues: VisualCues, budget: int) -> Tensor:
        attention, embeds = cues.need("cls_attention"), cues.need("embeds")
        if self.cues == "qwen_release":
            votes = _votes(torch.stack([attention, dissimilarity(embeds)], dim=1), budget)
            rest = attention if cues.relevance is None else cues.relevance
            return rank(rest, tier=votes > VOTE)[:, :budget]
        given = [attention] if cues.relevance is None else [attention, cues.relevance]
        spread = min_max(torch.stack(given, dim=1), cues.image_index)
        scores = torch.cat([spread[:, :1], dissimilarity(embeds).unsqueeze(1), spread[:, 1:]], dim=1)  # (B, 3, N)
        votes = threshold(_votes(scores, budget), VOTE, 0)  # one alone is none
        total = scores.sum(dim=1).view(torch.int32)  # (B, N): read as integers, positive float32 numbers ascend as well
        return (votes + total).argsort(dim=1, descending=True, stable=True)[:, :budget]


def dissimilarity(tokens: Tensor) -> Tensor:
    """One minus the mean cosine of each token with the others, their sum divided by N: (B, N, D) -> (B, N)."""
    if on_cpu(tokens):
        tokens, scale = factored(tokens)
        with_itself = (scale > 0).float()
        total = scale.unsqueeze(1) @ tokens  # (B, 1, D) of all unit vectors
        with_all = (total @ tokens.mT).squeeze(1) * scale  # (B, N)
    else:
        tokens, length = measured(tokens)
        with_itself = (length < torch.inf).float().squeeze(2)
        unit = tokens.div_(length)
        with_all = (with_itself.unsqueeze(1) @ unit @ unit.mT).squeeze(1)
    return 1 - (with_all - with_itself) / tokens.shape[1]


def _votes(scores: Tensor, budget: int) -> Tensor:
    """``VOTE`` times how many of the scores (B, cues, N) have each token among their best ``budget``, (B, N) int64."""
    nominated = rank(scores)[..., :budget]  # (B, cues, budget)
    return torch.zeros_like(scores, dtype=torch.int64).scatter_(2, nominated, VOTE).sum(dim=1)
