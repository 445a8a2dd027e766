"""CDPruner: Beyond Attention or Similarity (NeurIPS 2025), https://arxiv.org/abs/2506.10967."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from llava.pruners import centering, search
from llava.pruners.base import Pruner
from llava.pruners.checks import is_number
from llava.pruners.cues import VisualCues
from llava.pruners.functional import image_max, image_min

LOWEST_EXPONENT = 40


@dataclass(frozen=True)
class CDPruner(Pruner):
    """Keep the tokens that together are most diverse and most relevant to the instruction (conditional DPP).

    The kernel is cosine similarity of the projected tokens, weighted on both sides by relevance q, min-max normalised
    over all tiles of an image; the most likely subset is found greedily. Where the relevance of an image says nothing
    (no text, constant, not finite), q is 1 and the choice is by diversity alone.

    The release rounds unit vectors to the model's dtype before it multiplies them; here they stay float32.

    Args:
        theta: weight of relevance against diversity, in [0, 1): q becomes exp(theta / (2 (1 - theta)) q), and 0
            ignores the text. None, as in the release, uses q itself.
        centered: whether tokens are centred before they are compared: q is weighted by how distinctive each is, as
            ``centering`` has it, and a selection is of a tile, then. False, True, or its form, "plain" or
            "standardised".

    Raises:
        ValueError: when theta or centered is none of these.
    """

    theta: float | None = None
    centered: bool | str = field(default=False, metadata={"forms": centering.FORMS})

    needs = frozenset({"embeds", "relevance"})
    paper = "https://arxiv.org/abs/2506.10967"
    source = "https://github.com/Theia-4869/CDPruner"
    licence = "Apache-2.0"

    def __post_init__(self) -> None:
        super().__post_init__()
        centering.set_up(self, self.centered)
        if self.theta is not None and not (is_number(self.theta) and 0 <= self.theta < 1):
            raise ValueError(f"theta must be None or a number in [0, 1), not {self.theta!r}")

    def select(self, cues: VisualCues, budget: int) -> Tensor:
        if self.centered is False:
            return search.greedy_map(cues.need("embeds"), self._quality(cues), budget)
        tokens, distinctiveness = centering.centred(cues, self.centered)
        return search.greedy_map(tokens, self._quality(cues) * distinctiveness, budget)

    def _quality(self, cues: VisualCues) -> Tensor:
        """The relevance weight q of every token, (B, N), positive and finite."""
        if cues.relevance is None:
            return torch.ones(cues.shape, device=cues.device)
        low, high = image_min(cues.relevance, cues.image_index), image_max(cues.relevance, cues.image_index)
        span = (high - low).nan_to_num(nan=0.0, posinf=0.0)  # (B, 1)
        if self.theta is None:
            quality = (cues.relevance - low + 1e-6) / span
        else:
            quality = _weighted(cues.relevance, high, span, strength=self.theta / (2 * (1 - self.theta)))
        return quality.masked_fill(span < 1e-12, 1.0)


def _weighted(relevance: Tensor, high: Tensor, span: Tensor, strength: float) -> Tensor:
    """exp of the normalised relevance times a strength, (B, N), positive up to the largest strength.

    A common factor on q changes no choice: with 1 at the most relevant token, exp cannot overflow. Nor does how small a
    q is that adds nothing any more, as long as the order stays: below exp(-40) the exponent is spread over [-80, -40],
    where float32 does not yet make zeros of it.
    """
    if strength <= LOWEST_EXPONENT:
        return (strength * (relevance - high) / span).exp()
    normalised = (relevance - high) / span  # in [-1, 0]
    beyond = (normalised + LOWEST_EXPONENT / strength).clamp_max(0)
    return ((strength * normalised).clamp_min(-LOWEST_EXPONENT) + LOWEST_EXPONENT * beyond).exp()
