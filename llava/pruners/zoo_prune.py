"""ZOO-Prune: sensitivity of the projector, without gradients (CVPR 2026), https://arxiv.org/abs/2509.24837."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from llava.pruners import centering, search
from llava.pruners.base import Pruner
from llava.pruners.checks import is_count, is_number
from llava.pruners.cues import VisualCues
from llava.pruners.functional import finite, spread


@dataclass(frozen=True)
class ZooPrune(Pruner):
    """Keep the tokens that the projector is most sensitive to and that lie farthest from those kept before.

    Starts from the most sensitive token, then repeatedly adds the one whose sensitivity, from 0 to 1 in its tile, times
    its distance from everything kept so far is largest, by cosine distance of the projected tokens.

    Args:
        directions: in how many random directions the sensitivity is measured, 1 or more.
        h: length of the step in each direction, above 0; the paper's unless it is given.
        seed: of the directions.
        centered: whether tokens are centred before they are compared: sensitivity is weighted by how distinctive each
            is, as ``centering`` has it, then. False, True, or its form, "plain" or "standardised".

    Raises:
        ValueError: when an option is out of range.
    """

    directions: int = 64
    h: float = 0.01
    seed: int = 0
    centered: bool | str = field(default=False, metadata={"forms": centering.FORMS})

    needs = frozenset({"embeds", "sensitivity"})
    paper = "https://arxiv.org/abs/2509.24837"

    def __post_init__(self) -> None:
        super().__post_init__()
        centering.set_up(self, self.centered)
        if not is_count(self.directions) or self.directions == 0:
            raise ValueError(f"directions must be an integer, 1 or more, not {self.directions!r}")
        if not (is_number(self.h) and 0 < self.h < float("inf")):
            raise ValueError(f"h must be a number above 0, not {self.h!r}")
        if not is_count(self.seed) or self.seed >= 2**63:
            raise ValueError(f"seed must be an integer from 0 to 2^63 - 1, not {self.seed!r}")

    def asks(self, cue: str) -> dict[str, Any]:
        return {"directions": self.directions, "h": self.h, "seed": self.seed} if cue == "sensitivity" else {}

    def select(self, cues: VisualCues, budget: int) -> Tensor:
        tokens, weight = cues.need("embeds"), spread(_scaled(cues.need("sensitivity")))
        if self.centered is not False:
            tokens, distinctiveness = centering.centred(cues, self.centered)
            weight = weight * distinctiveness
        return search.max_min(tokens, budget, weight, first=weight.argmax(dim=1, keepdim=True))


def _scaled(sensitivity: Tensor) -> Tensor:
    """Over the largest of each tile, so that no difference overflows; one that is not finite counts as none."""
    values = finite(sensitivity).clamp_min(0)
    return values / values.amax(dim=1, keepdim=True).clamp_min(1e-30)
