"""DivPrune: Diversity-based Visual Token Pruning (CVPR 2025), https://arxiv.org/abs/2503.02175."""

from dataclasses import dataclass

from torch import Tensor

from llava.pruners import search
from llava.pruners.base import Pruner
from llava.pruners.cues import VisualCues


@dataclass(frozen=True)
class DivPrune(Pruner):
    """Keep the tokens that lie farthest apart (greedy max-min diversity).

    Starts from the token farthest from its nearest neighbour, then repeatedly adds the token farthest from everything
    kept so far, by cosine distance of the projected tokens.
    """

    needs = frozenset({"embeds"})
    scope = "image"
    paper = "https://arxiv.org/abs/2503.02175"
    source = "https://github.com/vbdi/divprune"
    licence = "CC BY-NC 4.0"

    def select(self, cues: VisualCues, budget: int) -> Tensor:
        return search.max_min(cues.embeds, budget)
