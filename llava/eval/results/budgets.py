"""Budgets that follow the picture, in results: what was kept of images, and which rows a row is to be held against."""

from collections.abc import Sequence
from math import ceil


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that at least a ``share`` of them do not exceed."""
    return sorted(values)[max(ceil(share * len(values)), 1) - 1]
