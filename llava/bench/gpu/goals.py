"""What the project wants to reach on a GPU, and how far a run is from it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

BATCH, LARGE_BATCH = 1, 16
Row = dict[str, Any]
Parts = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Goal:
    """A number to reach.

    Args:
        about: what the number is.
        target: in words.
        met: whether a number is good enough.
    """

    about: str
    target: str
    met: Callable[[float], bool]

    def row(self, value: float | None, method: str = "all", question: str = "-") -> Row:
        met = None if value is None else self.met(value)
        row = {"goal": self.about, "method": method, "question": question, "value": value}
        return row | {"target": self.target, "met": met}


GOLDEN = Goal("share of the recorded selections that are chosen", "1", lambda value: value == 1)
SERVING = Goal(
    "images a second at the best batch, 64 of 576 tokens, over none's", "at least 2.5", lambda value: value >= 2.5
)
FIRST_TOKEN = Goal(
    "image side and first token at batch 1 with CUDA graphs, over none's", "at most 1.05", lambda value: value <= 1.05
)
SHARE = Goal(
    "image side beyond uniform's, over the pruned prefill at batch 16",
    "under 0.1, 0.05 is better",
    lambda value: value < 0.1,
)


def reached(parts: Parts) -> list[Row]:
    """One row per goal and pruner that was measured, or per goal where nothing was.

    Returns:
        Rows with ``goal``, ``method``, ``question`` ("known", "new" for every image, "-" where it is not read),
        ``value``, None where it was not measured, ``target`` and ``met``.
    """
    golden, speeds, sides = (_rows(parts, name) for name in ("golden", "saturation", "image_side"))
    pruned = [row for row in sides if row["method"] not in ("none", "uniform")]
    with_graphs = any(row["graphs"] for row in pruned)
    found = {
        GOLDEN: [GOLDEN.row(sum(row["equal"] for row in golden) / len(golden))] if golden else [],
        SERVING: _serving(speeds),
        FIRST_TOKEN: _of(FIRST_TOKEN, pruned, "first_token_of_none", BATCH, graphs=True),
        SHARE: _of(SHARE, pruned, "share_of_prefill", LARGE_BATCH, with_graphs),
    }
    return [row for goal, rows in found.items() for row in rows or [goal.row(None)]]


def _rows(parts: Parts, name: str) -> list[Row]:
    return list(parts.get(name, {}).get("rows", ()))


def _serving(rows: Sequence[Row]) -> list[Row]:
    """Each pruner's best speed over the best without one; where others are tried, CDPruner is fastest."""
    best: dict[tuple[str, str], float] = {}
    for row in rows:
        way = row["method"], row["question"]
        best[way] = max(best.get(way, 0.0), row.get("images_per_second", 0.0))
    base = best.pop(("none", "known"), 0.0)
    return [SERVING.row(speed / base, *way) for way, speed in best.items()] if base else []


def _of(goal: Goal, rows: Sequence[Row], name: str, batch: int, graphs: bool) -> list[Row]:
    return [
        goal.row(row[name], row["method"], row["question"])
        for row in rows
        if row["B"] == batch and row["graphs"] == graphs
    ]
