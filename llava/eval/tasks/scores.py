"""What every scorer shares: means, intervals, and how a result is told and written."""

import json
import logging
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from llava.eval.tasks.matching import is_missing
from llava.records import InputError, replace_file

logger = logging.getLogger(__name__)

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
        scores: of every question in [0, 1], 1 being right, by what tells the questions of the benchmark apart; empty
            where a question has no score of its own.
    """

    benchmark: str
    metric: str
    value: float
    count: int
    missing: int
    unparsable: int
    ci95: tuple[float, float]
    details: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of_scores(
        cls,
        benchmark: str,
        metric: str,
        scores: Sequence[float],
        answers: Iterable[Mapping[str, Any]],
        unread: int,
        details: dict[str, Any] | None = None,
        questions: Iterable[Hashable] = (),
    ) -> "Result":
        """The mean of scores in [0, 1].

        Args:
            answers: those that were scored; some say why they are missing.
            unread: how many of them say nothing that the metric can read, the missing ones among them.
            questions: what tells the scored questions apart, in the order of the scores.

        Raises:
            InputError: no scores.
        """
        value, missing = percent(scores), sum(map(is_missing, answers))
        counts = (len(scores), missing, unread - missing)
        by_question = scores_of(questions, scores)
        return cls(benchmark, metric, value, *counts, percent_interval(scores), details or {}, by_question)


def scores_of(questions: Iterable[Hashable], scores: Sequence[float]) -> dict[str, float]:
    """Scores by question; none where the questions are not told, or two of them go by the same name."""
    names = list(map(written_name, questions))
    named = dict(zip(names, map(float, scores), strict=True)) if names else {}
    return named if len(named) == len(names) else {}


def written_name(name: Hashable) -> str:
    """What tells a question apart, as results write it."""
    return "/".join(map(str, name)) if isinstance(name, tuple) else str(name)


def percent(scores: Sequence[float]) -> float:
    """The mean, in percent.

    Raises:
        InputError: no scores.
    """
    if not scores:
        raise InputError("no questions to score")
    return 100 * fmean(scores)


def percent_interval(scores: Sequence[float]) -> tuple[float, float]:
    """95 % bootstrap interval of the mean, in percent."""
    low, high = bootstrap_interval(scores)
    return 100 * low, 100 * high


def percent_by(names: Iterable[Any], scores: Iterable[float]) -> dict[str, dict[str, float]]:
    """The mean in percent and the number of scores for every name, sorted by name."""
    groups: dict[Any, list[float]] = {}
    for name, score in zip(names, scores, strict=True):
        groups.setdefault(name, []).append(score)
    return {str(name): {"value": percent(groups[name]), "count": len(groups[name])} for name in sorted(groups)}


def breakdowns(what: str, details: Mapping[str, Any]) -> list[str]:
    """A block for each ``by_...`` in ``details``: a blank line, what is given by what, and a line for every group."""
    lines = []
    for by, groups in details.items():
        if by.startswith("by_"):
            lines += ["", f"{what} {by.replace('_', ' ')}:"]
            lines += [f"{name}: {group['value']:.2f}% ({group['count']} questions)" for name, group in groups.items()]
    return lines


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
    import numpy as np  # names of benchmarks are looked up without it

    values, counts = np.unique(np.asarray(scores, dtype=np.float64), return_counts=True)
    rng = np.random.default_rng(seed)
    # How often each value occurs in a resample is multinomial; scores have few values, questions are many.
    means = [rng.multinomial(len(scores), counts / len(scores)) @ values / len(scores) for _ in range(resamples)]
    return percentile_interval(means)


def percentile_interval(replicates: Any) -> tuple[float, float]:
    """The middle 95 % of the numbers that a metric comes to in resamples of the questions."""
    import numpy as np

    low, high = np.quantile(replicates, [0.025, 0.975])
    return float(low), float(high)


def write_result(result: Result, path: str | Path, **more: Any) -> None:
    """Write a result, and ``more``, as JSON; the scores of the questions, which may be many, stand in one line.

    Raises:
        InputError: the file cannot be written.
    """
    content = asdict(result)
    scores = content.pop("scores")
    text = json.dumps(content | more, indent=2)
    if scores:
        text = f'{text.removesuffix("}").rstrip()},\n  "scores": {json.dumps(scores)}\n}}'
    replace_file(path, f"{text}\n")


def clustered_stderr(values: Sequence[float], clusters: Sequence[Any]) -> float:
    """Standard error of the mean of ``values`` when those of one cluster, such as one image, may err together.

    Args:
        values: one per question.
        clusters: what each question belongs to; with as many clusters as questions it is the ordinary standard error.

    Raises:
        ValueError: fewer than two clusters.
    """
    import numpy as np  # names of benchmarks are looked up without it

    deviations = np.asarray(values, dtype=np.float64) - np.mean(values)
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    if len(names) < 2:
        raise ValueError("a standard error needs at least two clusters")
    sums = np.bincount(index, weights=deviations)
    return float(math.sqrt(len(names) / (len(names) - 1) * (sums**2).sum()) / len(deviations))


def publish(result: Result, report: str, output: str | None, **more: Any) -> None:
    """Print the report, say what could not be scored, and write the result, and ``more``, to ``output`` if given."""
    print(report)
    if result.missing or result.unparsable:
        logger.warning(
            "%s: %d of %d questions without an answer, %d answers that cannot be read",
            *(result.benchmark, result.missing, result.count, result.unparsable),
        )
    if output:
        write_result(result, output, **more)
