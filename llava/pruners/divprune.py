"""DivPrune: Diversity-based Visual Token Pruning (CVPR 2025), https://arxiv.org/abs/2503.02175."""

from dataclasses import dataclass, field

from torch import Tensor

from llava.pruners import centering, search
from llava.pruners.base import Pruner
from llava.pruners.cues import VisualCues


@dataclass(frozen=True)
class DivPrune(Pruner):
    """Keep the tokens that lie farthest apart (greedy max-min diversity).

    Starts from the token farthest from its nearest neighbour, then repeatedly adds the token farthest from everything
    kept so far, by cosine distance of the projected tokens.

    Args:
        centered: whether tokens are centred before they are compared: the distance of one that may be added counts by
            how distinctive it is, as ``centering`` has it, and a selection is of a tile, then. False, True, or its
            form, "plain" or "standardised".

    Raises:
        ValueError: when centered is none of these.
    """

    centered: bool | str = field(default=False, metadata={"forms": centering.FORMS})

    needs = frozenset({"embeds"})
    scope = "image"
    paper = "https://arxiv.org/abs/2503.02175"
    source = "https://github.com/vbdi/divprune"
    licence = "CC BY-NC 4.0"

    def __post_init__(self) -> None:
        super().__post_init__()
        centering.set_up(self, self.centered)

    def select(self, cues: VisualCues, budget: int) -> Tensor:
        if self.centered is False:
            return search.max_min(cues.need("embeds"), budget)
        tokens, distinctiveness = centering.centred(cues, self.centered)
        return search.max_min(tokens, budget, weight=distinctiveness)
