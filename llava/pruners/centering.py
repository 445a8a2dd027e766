"""Cen-Prune: Centering before Pruning, https://arxiv.org/abs/2608.30263: what the pruners with ``centered`` share.

All visual tokens of a picture share a direction, which makes any two of them look alike. Without it their cosines tell
them apart; and how far a token is from all others in mean, its distinctiveness, is a weight of its own.
"""

import torch
from torch import Tensor

from llava.pruners.base import Pruner
from llava.pruners.cues import VisualCues
from llava.pruners.functional import finite, spread
from llava.pruners.search.products import unit_vectors

FORMS = ("plain", "standardised")
EPSILON = 1e-6


def set_up(pruner: Pruner, centered: bool | str) -> None:
    """Check the option ``centered`` of a pruner; one that is centred chooses tile by tile, of a picture's tokens alone.

    Raises:
        ValueError: when it is none of False, True and ``FORMS``.
    """
    if not (isinstance(centered, bool) or (isinstance(centered, str) and centered in FORMS)):
        raise ValueError(f"centered must be False, True or one of {', '.join(FORMS)}, not {centered!r}")
    if centered is False:
        return
    before_merging = frozenset() if centered == "plain" else frozenset({"premerger"})
    object.__setattr__(pruner, "needs", pruner.needs | before_merging)
    object.__setattr__(pruner, "scope", "tile")
    object.__setattr__(pruner, "newlines", False)


def centred(cues: VisualCues, form: bool | str) -> tuple[Tensor, Tensor]:
    """The tokens without what all of a tile share, and how distinctive each is.

    Args:
        cues: with ``embeds``, or for the standardised form ``premerger``.
        form: "plain" takes the projected tokens as they are; "standardised" makes the dimensions of the tokens equally
            wide, taken before they are merged where there is such; True is that where there is such, else plain.

    Returns:
        (B, N, D') centred tokens of any length, and (B, N) from 0 to 1, finite.
    """
    before_merging = None if form == "plain" else cues.premerger
    tokens = cues.need("embeds") if before_merging is None else before_merging
    tokens, size = _scaled(tokens)
    if form == "standardised" or before_merging is not None:
        tokens = _standardised(tokens, size)
        return tokens - tokens.mean(dim=1, keepdim=True), _standing(_distinctiveness(tokens))
    return tokens - tokens.mean(dim=1, keepdim=True), spread(_distinctiveness(tokens))


def _scaled(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens of a tile over its largest number, so that no sum overflows: (B, N, D) and what they were divided by.

    No cosine changes by it. An entry that is not finite counts as zero.
    """
    tokens = finite(tokens)
    size = tokens.abs().amax(dim=(1, 2), keepdim=True).clamp_min(1e-30)  # (B, 1, 1)
    return tokens / size, size


def _standardised(tokens: Tensor, size: Tensor) -> Tensor:
    """Tokens (B, N, D) over the standard deviation of each dimension, not centred; ``size`` as in ``_scaled``."""
    variance = (tokens - tokens.mean(dim=1, keepdim=True)).square().mean(dim=1, keepdim=True)  # (B, 1, D)
    deviation = (variance + EPSILON / size / size).sqrt()
    return torch.where(deviation > 0, tokens / deviation, 0.0)


def _distinctiveness(tokens: Tensor) -> Tensor:
    """The negated mean cosine of each token with the others, in time linear in their number, (B, N, D) -> (B, N)."""
    unit = unit_vectors(tokens)
    others = unit.sum(dim=1, keepdim=True) - unit
    return -(unit * others).sum(dim=2) / (tokens.shape[1] - 1)


def _standing(scores: Tensor) -> Tensor:
    """The logistic function of scores in standard deviations from their mean, (B, N) -> (B, N).

    It is made of an exponential, since torch's own rounds otherwise at the end of a batch than within it.
    """
    above = scores - scores.mean(dim=1, keepdim=True)
    deviation = above.square().mean(dim=1, keepdim=True).sqrt()
    return 1 / (1 + (-above / (deviation + EPSILON)).exp())
