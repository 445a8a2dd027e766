"""Rows whose budgets follow the picture, each beside those that keep as much of every picture alike."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from llava.eval.results.table import Row, Table, title

HEADING = ["pruner", "setting", "benchmark", "score", "tokens per tile", "5 %", "50 %", "95 %"]
NOTE = (
    "Budgets that follow the picture: tokens kept per tile on average, and the numbers that 5, 50 and 95 % of the "
    "images do not exceed; below each, what was measured with a fixed budget of as many. What a budget gains is told "
    "by the same pruner's fixed one, and only with that row."
)
FLOORS = ("random", "uniform")
MEASURED = re.compile(r"_(budget(?:spectral|mass)|budget_splitimportance|erank_ref[^_]+|mass[\d.e+-]+)(?=_|$)")
APPLIED = re.compile(r"_(?:budget_scope(?:tile|image)|positions(?:compact|original)|prune_layer\d+)(?=_|$)")
NEAR = 0.02
"""How far a fixed budget may be from the mean that it stands beside, as a share of it; half a token is near, too."""


def companions(table: Table, row: Row, column: str) -> dict[str, Row | None]:
    """The rows that one is to be held against on a benchmark, by pruner; None for those that were not measured.

    They keep as many tokens of every tile as this one does on average, and are applied alike; the same pruner has the
    same options besides.
    """
    applied = "".join(APPLIED.findall(row.label)).removeprefix("_")
    rest = MEASURED.sub("", row.label).partition("_")[2].partition("_")[2]
    wanted = {row.pruner: rest} | {name: applied for name in FLOORS if name != row.pruner}
    mean = row.cells[column].kept.mean
    found: dict[str, Row | None] = {}
    for pruner, others in wanted.items():
        fitting = [
            (abs(budget - mean), other)
            for other in table.rows
            if other.pruner == pruner and column in other.cells and (budget := _fixed(other, others)) is not None
        ]
        nearest = min(fitting, key=lambda pair: pair[0], default=None)
        near = nearest is not None and nearest[0] <= max(0.5, NEAR * mean)
        found[pruner] = nearest[1] if near else None
    return found


def _fixed(row: Row, rest: str) -> int | None:
    """The number of tokens of a row's fixed budget, None of one that has another, or other options than ``rest``."""
    kind, _, label = row.label.partition("_")
    budget, _, others = label.partition("_")
    fits = kind == "vtn" and others == rest and budget.isdecimal() and not MEASURED.search(row.label)
    return int(budget) if fits else None


def moving(table: Table) -> Iterator[tuple[Row, str]]:
    """The rows whose budgets follow the picture, with each benchmark on which they were measured."""
    for row in table.rows:
        yield from ((row, column) for column, cell in row.cells.items() if cell.kept and cell.kept.mean is not None)


def budget_lines(table: Table) -> list[list[str]]:
    """Rows under ``HEADING``: each that follows the picture, and below it those that stand beside it."""
    lines = []
    for row, column in moving(table):
        kept = row.cells[column].kept
        lines.append(_line(table, row, column, [kept.mean, *kept.quantiles]))
        beside = [other for other in companions(table, row, column).values() if other is not None]
        lines += [_line(table, other, column, [int(other.label.split("_")[1])]) for other in beside]
    return lines


def _line(table: Table, row: Row, column: str, numbers: Sequence[float]) -> list[str]:
    shown = [f"{number:.1f}".removesuffix(".0") for number in numbers]
    texts = [
        row.pruner,
        "_".join(filter(None, [row.label, table.limit])),
        title(column),
        f"{row.cells[column].value:.1f}",
        *shown,
    ]
    return texts + [""] * (len(HEADING) - len(texts))


def budget_notes(table: Table) -> list[str]:
    """What stands beside no fixed budget of as many tokens."""
    said = []
    for row, column in moving(table):
        missing = [name for name, other in companions(table, row, column).items() if other is None]
        if missing:
            mean = row.cells[column].kept.mean
            claim = "; no gain is claimed without that row" if row.pruner in missing else ""
            said.append(
                f"{row.pruner}, {row.label}, {title(column)}: {mean:.1f} tokens per tile on average; not measured "
                f"with a fixed budget of {round(mean)}: {', '.join(missing)}{claim}."
            )
    return said


def budget_records(table: Table) -> list[dict[str, Any]]:
    """The same for programs: each row that follows the picture, and the settings of those beside it."""
    return [
        {"pruner": row.pruner, "setting": row.label, "benchmark": column, "mean": row.cells[column].kept.mean}
        | {"beside": {name: other and other.label for name, other in companions(table, row, column).items()}}
        for row, column in moving(table)
    ]
