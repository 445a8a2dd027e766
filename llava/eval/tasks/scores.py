"""What every scorer shares: intervals, and the file a result is written to."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from llava.records import replace_file

Z_95 = 1.959963984540054


@dataclass(frozen=True)
class Result:
    """The outcome of one benchmark.

    Args:
        benchmark: its name.
        metric: what ``value`` is.
        value: percent.
        count: questions scored.
        missing: questions without an answer, counted as wrong.
        unparsable: answers that say nothing the metric can read, counted as wrong.
        ci95: 95 % bootstrap interval of ``value`` over the questions.
        details: whatever else the benchmark reports.
    """

    benchmark: str
    metric: str
    value: float
    count: int
    missing: int
    unparsable: int
    ci95: tuple[float, float]
    details: dict[str, Any] = field(default_factory=dict)


def wilson_interval(correct: int, count: int) -> tuple[float, float]:
    """95 % Wilson score interval of a proportion, within [0, 1]; (0, 1) where nothing was counted."""
    if not count:
        return 0.0, 1.0
    share, z2 = correct / count, Z_95**2
    centre = share + z2 / (2 * count)
    half = Z_95 * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    low, high = ((centre + sign * half) / (1 + z2 / count) for sign in (-1, 1))
    return max(low, 0.0), min(high, 1.0)


def bootstrap_interval(scores: Sequence[float], resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean; the same seed gives the same interval.

    Raises:
        ValueError: no scores.
    """
    if not len(scores):
        raise ValueError("no scores to resample")
    values, counts = np.unique(np.asarray(scores, dtype=np.float64), return_counts=True)
    rng = np.random.default_rng(seed)
    # How often each value occurs in a resample is multinomial; scores have few values, questions are many.
    means = [rng.multinomial(len(scores), counts / len(scores)) @ values / len(scores) for _ in range(resamples)]
    return percentile_interval(means)


def percentile_interval(replicates: Sequence[float]) -> tuple[float, float]:
    """The middle 95 % of what a metric comes to in resamples of the questions."""
    low, high = np.quantile(replicates, [0.025, 0.975])
    return float(low), float(high)


def write_result(result: Result, path: str | Path) -> None:
    """Write a result as JSON.

    Raises:
        InputError: the file cannot be written.
    """
    replace_file(path, json.dumps(asdict(result), indent=2) + "\n")


def clustered_stderr(values: Sequence[float], clusters: Sequence[Any]) -> float:
    """Standard error of the mean of ``values`` when those of one cluster, such as one image, may err together.

    Args:
        values: one per question.
        clusters: what each question belongs to; with as many clusters as questions it is the ordinary standard error.

    Raises:
        ValueError: fewer than two clusters.
    """
    deviations = np.asarray(values, dtype=np.float64) - np.mean(values)
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    if len(names) < 2:
        raise ValueError("a standard error needs at least two clusters")
    sums = np.bincount(index, weights=deviations)
    return float(math.sqrt(len(names) / (len(names) - 1) * (sums**2).sum()) / len(deviations))
