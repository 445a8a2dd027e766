"""FastV: what the prompt itself attends to inside the language model, https://arxiv.org/abs/2403.06764."""

from dataclasses import dataclass

from torch import Tensor

from llava.pruners.base import Pruner
from llava.pruners.cues import VisualCues
from llava.pruners.functional import rank


@dataclass(frozen=True)
class FastV(Pruner):
    """Keep the tokens that the last token of the prompt attends to most, one layer before the others are dropped.

    The paper drops half of them after the second layer: ``prune_layer=2, keep_ratio=0.5``.
    """

    needs = frozenset({"text_attention"})
    scope = "image"
    paper = "https://arxiv.org/abs/2403.06764"
    source = "https://github.com/pkunlp-icler/FastV"

    def select(self, cues: VisualCues, budget: int) -> Tensor:
        return rank(cues.need("text_attention"))[:, :budget]
