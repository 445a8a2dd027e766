"""HoloV: Don't Just Chase "Highlighted Tokens" in MLLMs (NeurIPS 2025), https://arxiv.org/abs/2510.02912."""

from dataclasses import dataclass

from torch import Tensor

from llava.pruners import search
from llava.pruners.base import Pruner
from llava.pruners.checks import is_count, is_number
from llava.pruners.cues import VisualCues
from llava.pruners.functional import finite


@dataclass(frozen=True)
class HoloV(Pruner):
    """Keep of every stretch of the image as many tokens as its share of attention, those that [CLS] attends to most.

    The tokens are cut into consecutive stretches. A stretch counts by the mean attention of its tokens and by how much
    the similarities of each with the others vary; that second part all but cancels, see ``_score``. A stretch with
    fewer tokens than its share is kept whole, and what is left goes one by one to the others, the highest share first.
    The release fills up with zeros in its place.

    Args:
        num_patches: stretches that a tile is cut into, 1 or more; of fewer tokens each is one.
        alpha: weight of the variation of similarities, 0 or more.

    Raises:
        ValueError: when an option is out of range.
    """

    num_patches: int = 16
    alpha: float = 0.09

    needs = frozenset({"embeds", "cls_attention"})
    scope = "image"
    paper = "https://arxiv.org/abs/2510.02912"
    source = "https://github.com/obananas/HoloV"
    licence = "Apache-2.0"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_count(self.num_patches) or self.num_patches == 0:
            raise ValueError(f"num_patches must be an integer, 1 or more, not {self.num_patches!r}")
        if not (is_number(self.alpha) and 0 <= self.alpha < float("inf")):
            raise ValueError(f"alpha must be a number, 0 or more, not {self.alpha!r}")

    def select(self, cues: VisualCues, budget: int) -> Tensor:
        stretches = search.Stretches(cues.shape[1], self.num_patches, cues.need("embeds").device)
        return stretches.best(cues.need("cls_attention"), self._score(cues, stretches), budget)

    def _score(self, cues: VisualCues, stretches: search.Stretches) -> Tensor:
        """What each stretch counts, (B, P), finite and not negative.

        The variation of a token is divided by the mean of its stretch, so that their sum is mean attention times
        alpha, unless the tokens of a stretch are all but equal.
        """
        attention = stretches.cut(finite(cues.need("cls_attention")).clamp(0, 1), fill=0.0)  # shares: (B, P, S)
        variation, sizes = stretches.variation(cues.need("embeds")), stretches.sizes
        raised = 1000 * attention
        balance = raised.sum(dim=2) / sizes / (variation.sum(dim=2) / sizes + 1e-6)  # (B, P)
        scores = (raised + self.alpha * variation * balance.unsqueeze(2)).sum(dim=2) / sizes
        return scores.where(sizes > 1, attention.sum(dim=2))
