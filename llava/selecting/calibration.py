"""What spectral budgets refer to, found so that their mean over known images is the number that is wanted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt

from llava.selecting.budgets import spectral_budget

STEPS = 80  # of a bisection: a float has no more bits to find
DIGITS = 6


@dataclass(frozen=True)
class Spectrum:
    """What was measured of an image: its effective rank, and how many tiles and tokens it has."""

    erank: float
    tiles: int
    tokens: int

    def kept(self, erank_ref: float, wanted: int) -> int:
        """Tokens that are kept of it."""
        return min(self.tokens, self.tiles * spectral_budget(self.erank, erank_ref, wanted))


def mean_kept(images: Sequence[Spectrum], erank_ref: float, wanted: int) -> float:
    """Tokens kept per tile, over all tiles of all images."""
    return sum(image.kept(erank_ref, wanted) for image in images) / sum(image.tiles for image in images)


def solve(images: Sequence[Spectrum], wanted: int) -> float:
    """The ``erank_ref`` with which images keep ``wanted`` tokens per tile on average, or as near to it as there is.

    The mean falls as the reference grows, in steps, since every image keeps a whole number; bounds and tiles that are
    too small bend it. Of the references with the same mean the middle one is taken, rounded to six digits.

    Args:
        images: one or more.
        wanted: tokens per tile, 16 or more.

    Raises:
        ValueError: there are no images, or they do not have so many tokens.
    """
    if not images:
        raise ValueError("there are no images to measure")
    most = sum(image.tokens for image in images) / sum(image.tiles for image in images)
    if wanted >= most:
        raise ValueError(f"{wanted} tokens per tile are wanted, and the images have {most:g}: nothing is to be pruned")
    bounds = min(image.erank for image in images) / 8, max(image.erank for image in images) * 8

    def mean(erank_ref: float) -> float:
        return mean_kept(images, erank_ref, wanted)

    above, below = _edge(lambda ref: mean(ref) >= wanted, *bounds)
    best = min(mean(above), mean(below), key=lambda found: abs(found - wanted))
    last, _ = _edge(lambda ref: mean(ref) >= best, *bounds)
    _, first = _edge(lambda ref: mean(ref) > best, *bounds)
    middle = sqrt(first * last)
    rounded = float(f"{middle:.{DIGITS}g}")
    return rounded if mean(rounded) == best else middle


def _edge(holds: Callable[[float], bool], low: float, high: float) -> tuple[float, float]:
    """Neighbouring numbers between which a condition ends that holds for small ones."""
    if not holds(low):
        return low, low
    for _ in range(STEPS):
        middle = sqrt(low * high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low, high
