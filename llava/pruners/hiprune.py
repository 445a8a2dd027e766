"""HiPrune: hierarchical attention for visual token pruning, https://arxiv.org/abs/2508.00553."""

from dataclasses import dataclass
from math import isqrt
from typing import Any

import torch
from torch import Tensor

from llava.pruners.base import Pruner
from llava.pruners.checks import is_count, is_number
from llava.pruners.cues import VisualCues
from llava.pruners.functional import rank


@dataclass(frozen=True)
class HiPrune(Pruner):
    """Keep what a middle block of the encoder looks at, with its neighbours, and what the selected block looks at.

    The tokens that receive most attention in the middle block are anchors; each is kept with the tokens left, right,
    above and below it. The rest are those that receive most attention in the selected block. As in the release, the
    neighbours of a token at the end of a row are at the ends of the rows beside it, and those of the first and last row
    that would be outside are the first and the last token. Where anchors and neighbours are more than are kept, the
    anchors come first, then the neighbours by their attention in the middle block; the release fails there.

    Args:
        alpha: share of the kept tokens that may be anchors or neighbours, in [0, 1].
        object_layer: the encoder's middle block, counted from 1.

    Raises:
        ValueError: when an option is out of range; in a selection, when nothing tells how many tokens a row has.
    """

    alpha: float = 0.1
    object_layer: int = 9

    needs = frozenset({"object_attention", "deep_attention"})
    paper = "https://arxiv.org/abs/2508.00553"
    source = "https://github.com/Danielement321/HiPrune"
    licence = "MIT"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (is_number(self.alpha) and 0 <= self.alpha <= 1):
            raise ValueError(f"alpha must be a number in [0, 1], not {self.alpha!r}")
        if not is_count(self.object_layer) or self.object_layer == 0:
            raise ValueError(f"object_layer must be an integer, 1 or more, not {self.object_layer!r}")

    def asks(self, cue: str) -> dict[str, Any]:
        return {"layer": self.object_layer} if cue == "object_attention" else {}

    def select(self, cues: VisualCues, budget: int) -> Tensor:
        num_tokens = cues.shape[1]
        num_anchors = round(budget * self.alpha / 5)
        objects, deep = cues.need("object_attention"), cues.need("deep_attention")
        anchors = rank(objects)[:, :num_anchors]  # (B, A)
        steps = torch.tensor([-1, 1, -_columns(cues), _columns(cues)], device=anchors.device)
        beside = (anchors.unsqueeze(2) + steps).clamp(0, num_tokens - 1).flatten(1)  # (B, 4 A)
        tier = torch.zeros(cues.shape, dtype=torch.int64, device=anchors.device)
        tier = tier.scatter(1, beside, 1).scatter(1, anchors, 2)
        attention = torch.where(tier > 0, objects, deep)
        return rank(attention, tier)[:, :budget]


def _columns(cues: VisualCues) -> int:
    """How many tokens a row of the picture has."""
    if cues.grid is not None:
        return cues.grid[1]
    num_tokens = cues.shape[1]
    if isqrt(num_tokens) ** 2 != num_tokens:
        raise ValueError(f"hiprune needs to know how many tokens are in a row: {num_tokens} are no square, give a grid")
    return isqrt(num_tokens)
