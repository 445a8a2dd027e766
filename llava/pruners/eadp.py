"""EADP: coverage weighted by what the question's least ambiguous words say (ECCV 2026)."""

from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from llava.pruners import search
from llava.pruners.base import Pruner
from llava.pruners.checks import is_number
from llava.pruners.cues import VisualCues
from llava.pruners.functional import image_max, min_max, smoothed
from llava.pruners.words import relevance_to_words


@dataclass(frozen=True)
class EADP(Pruner):
    """Keep the tokens that together cover those that matter to the question.

    A token is covered as far as the most similar kept one is similar to it, by cosine of the projected tokens, and
    counts by its ``importance``. Each step keeps the token that adds most.

    Args:
        alpha: share of the relevance to the question as a whole, in [0, 1]; the rest is that to its words.
        beta: exponent of importance, 0 or more; 0 covers all tokens alike.

    Raises:
        ValueError: when one is out of range.
    """

    alpha: float = 0.5
    beta: float = 1.0

    needs = frozenset({"embeds", "relevance", "joint_embeds", "text_sequence"})
    paper = "https://arxiv.org/abs/2607.02484"
    source = "https://github.com/SJTU-DeepVisionLab/EADP"
    licence = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (is_number(self.alpha) and 0 <= self.alpha <= 1):
            raise ValueError(f"alpha must be a number in [0, 1], not {self.alpha!r}")
        if not (is_number(self.beta) and 0 <= self.beta and isfinite(self.beta)):
            raise ValueError(f"beta must be a number, 0 or more, not {self.beta!r}")

    def select(self, cues: VisualCues, budget: int) -> Tensor:
        worth = importance(cues, self.alpha, self.beta)
        return search.cover(cues.need("embeds"), budget, worth=worth, nothing=-1.0)


def importance(cues: VisualCues, alpha: float, beta: float) -> Tensor:
    """How much each token matters to the question, (B, N) float32 from 0 to 1.

    The relevance to the question as a whole and to its words, spread over each image from its lowest to its highest,
    smoothed on the grid, to the power beta. 1 everywhere in an image without text or of which relevance says nothing.

    Args:
        cues: ``relevance``, ``joint_embeds``, ``text_sequence``, ``grid`` and ``image_index``, each possibly None.
        alpha: share of ``relevance``, in [0, 1]; the rest is that of the words. Where only one is known, it is all.
        beta: exponent, 0 or more.
    """
    parts = []
    if cues.relevance is not None:
        parts.append((alpha, cues.relevance.float()))
    if cues.joint_embeds is not None and cues.text_sequence is not None:
        parts.append((1 - alpha, relevance_to_words(cues.joint_embeds.float(), cues.text_sequence.float())))
    if not parts:
        return torch.ones(cues.shape, device=cues.device)
    share, relevance = parts[0]  # (B, N)
    for other, part in parts[1:]:
        relevance = share * relevance + other * part
    spread = min_max(relevance, cues.image_index)
    spread = spread.where(image_max(spread, cues.image_index) > 0, 1.0)
    return smoothed(spread, cues.grid).pow(beta)
