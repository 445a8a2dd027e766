"""SCOPE: Saliency-Coverage Oriented Token Pruning (NeurIPS 2025), https://arxiv.org/abs/2510.24214."""

from dataclasses import dataclass
from math import isfinite

from torch import Tensor

from llava.pruners import search
from llava.pruners.base import Pruner
from llava.pruners.checks import is_number
from llava.pruners.cues import VisualCues

COMBINATIONS = ("multi", "add")
HEADS = 16  # of CLIP's ViT-L, over which the release sums attention
LARGEST = 1e30  # of a weight: its product with the sum over a tile is finite


@dataclass(frozen=True)
class ScopePruner(Pruner):
    """Keep the tokens that together cover all others, those that [CLS] attends to before others.

    A token is covered as far as the most similar kept token is similar to it, by cosine of the unprojected features
    and not below 0. Each step keeps the token with the largest product of the coverage that it adds, summed over all
    tokens, and its attention to the power alpha. Attention that is negative or not finite counts as 0.

    Args:
        alpha: exponent of attention, 0 or more; 0 leaves coverage alone.
        combined: how coverage and attention are, "multi" or "add"; the former is that product, the latter the sum of
            both, with attention summed over CLIP's 16 heads as in the release.

    Raises:
        ValueError: when alpha is out of range, or for an unknown ``combined``.
    """

    alpha: float = 1.0
    combined: str = "multi"

    needs = frozenset({"features", "cls_attention"})
    paper = "https://arxiv.org/abs/2510.24214"
    source = "https://github.com/kinredon/SCOPE"
    licence = "Apache-2.0"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (is_number(self.alpha) and 0 <= self.alpha and isfinite(self.alpha)):
            raise ValueError(f"alpha must be a number, 0 or more, not {self.alpha!r}")
        if self.combined not in COMBINATIONS:
            raise ValueError(f"combined must be {' or '.join(COMBINATIONS)}, not {self.combined!r}")

    def select(self, cues: VisualCues, budget: int) -> Tensor:
        attention = cues.need("cls_attention").nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).clamp_(min=0)  # (B, N)
        if self.combined == "add":
            salience = (HEADS * attention).pow(self.alpha).clamp(max=LARGEST)
            return search.cover(cues.need("features"), budget, bonus=salience)
        return search.cover(cues.need("features"), budget, weight=attention.pow(self.alpha).clamp(max=LARGEST))
