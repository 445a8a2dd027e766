"""VisPruner: Beyond Text-Visual Attention (ICCV 2025), https://arxiv.org/abs/2412.01818."""

from dataclasses import dataclass

import torch
from torch import Tensor

from llava.pruners import search
from llava.pruners.base import Pruner
from llava.pruners.checks import is_number
from llava.pruners.cues import VisualCues
from llava.pruners.functional import rank


@dataclass(frozen=True)
class VisPruner(Pruner):
    """Keep the tokens that [CLS] attends to most, and of the others those with the fewest duplicates.

    Duplicates are removed in rounds over the encoder's features: each round splits the remaining tokens into two
    halves and drops the tokens of the first that are most similar to one of the second. Any number of remaining
    tokens will do; the release needs an even one.

    Args:
        important_ratio: share of the kept tokens chosen by attention, in [0, 1], rounded down.

    Raises:
        ValueError: when important_ratio is out of range.
    """

    important_ratio: float = 0.5

    needs = frozenset({"features", "cls_attention"})
    paper = "https://arxiv.org/abs/2412.01818"
    source = "https://github.com/Theia-4869/VisPruner"
    licence = "Apache-2.0"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (is_number(self.important_ratio) and 0 <= self.important_ratio <= 1):
            raise ValueError(f"important_ratio must be a number in [0, 1], not {self.important_ratio!r}")

    def select(self, cues: VisualCues, budget: int) -> Tensor:
        num_important = int(budget * self.important_ratio)
        by_attention = rank(cues.need("cls_attention"))  # (B, N)
        if num_important == budget:
            return by_attention[:, :budget]
        rest = by_attention[:, num_important:]
        features = cues.need("features")
        places = rest.unsqueeze(2).expand(-1, -1, features.shape[2])
        diverse = search.remove_duplicates(features.gather(1, places), budget - num_important)  # of (B, R, C)
        return torch.cat([by_attention[:, :num_important], rest.gather(1, diverse)], dim=1)
