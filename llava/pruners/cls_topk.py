"""[CLS] attention alone, as in FasterVLM, https://arxiv.org/abs/2412.01818."""

from dataclasses import dataclass

from torch import Tensor

from llava.pruners.base import Pruner
from llava.pruners.cues import VisualCues
from llava.pruners.functional import rank


@dataclass(frozen=True)
class ClsTopK(Pruner):
    """Keep the tokens that [CLS] attends to most."""

    needs = frozenset({"cls_attention"})
    paper = "https://arxiv.org/abs/2412.01818"
    source = "https://github.com/Theia-4869/FasterVLM"

    def select(self, cues: VisualCues, budget: int) -> Tensor:
        return rank(cues.need("cls_attention"))[:, :budget]
