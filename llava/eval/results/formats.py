"""Tables of results as Markdown, CSV, JSON and LaTeX."""

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from llava.asking.losses import told
from llava.eval.results import beside
from llava.eval.results.budgets import Kept
from llava.eval.results.grids import PAIRED, Grid, budgets, heading, line, memory, times
from llava.eval.results.published import MEASURED_BY
from llava.eval.results.table import Row, Table, per_percent, title

PAIRED_NOTE = f"In brackets, question by question: {PAIRED}"


def notes(table: Table, brackets: bool = True) -> list[str]:
    """What a reader has to know to read a table; ``brackets`` says that it shows how rows do beside no pruner."""
    unanswered = sum(cell.unanswered for row in table.rows for cell in row.cells.values())
    scaled = [title(column) for column in table.columns if per_percent(column) != 1]
    found = _published(table, brackets)
    several = [*map(title, table.columns)] if len(table.columns) > 1 else []
    found.append(f"Averages and percentages are means over {', '.join(several)}." if several else "")
    found.append(f"In averages {', '.join(scaled)} is divided by {per_percent('mme'):.0f}." if scaled else "")
    if any(row.cells and len(row.cells) < len(table.columns) for row in table.rows):
        found.append("Rows that lack a benchmark have no average.")
    if not table.unpruned:
        found.append("Nothing was measured here without a pruner (--pruner none), so nothing is relative to it.")
    found.append(f"* {unanswered} questions without an answer, counted as wrong." if unanswered else "")
    compared = brackets and any(cell.paired for row in table.rows for cell in row.cells.values())
    found.append(PAIRED_NOTE if compared else "")
    found += _losses(table)
    found += beside.budget_notes(table)
    return [note for note in found if note]


def _published(table: Table, brackets: bool) -> list[str]:
    """By which protocol the published numbers were measured, and whose word they are, row by row."""
    claims: dict[str, dict[str, dict[str, None]]] = {}
    for row in table.rows:
        if row.published:
            of_source = claims.setdefault(row.published.source, {})
            of_source.setdefault(row.published.claim, {})[row.pruner] = None
    said = {source: [f"{', '.join(rows)}: {claim}" for claim, rows in each.items()] for source, each in claims.items()}
    told = [f"{source}. {'; '.join(each)}." for source, each in said.items()]
    where = "In parentheses the published number and the difference to it" if brackets else "Published numbers"
    head = f"{where}, by {MEASURED_BY} as here."
    return [head, *told] if told else []


def _losses(table: Table) -> list[str]:
    """What was lost of the questions of each row, row by row and benchmark by benchmark."""
    said = []
    for row in table.rows:
        for column, cell in row.cells.items():
            lost = told({name: count for name, count in cell.lost.items() if name != "error"})
            said.append(f"{row.pruner}, {row.label}, {title(column)}: questions {lost}." if lost else "")
    return said


def to_markdown(tables: Sequence[Table]) -> str:
    """One section with a table for every group."""
    sections = []
    for table in tables:
        whole = Grid(str(table.group), heading(table), [line(table, row) for row in table.rows], 2)
        parts = [f"## {literal(whole.title)}", markdown_grid(whole), *map(literal, notes(table))]
        for grid in filter(None, [times(table), memory(table), budgets(table)]):
            parts += [*map(literal, grid.notes), markdown_grid(grid)]
        sections.append("\n\n".join(parts))
    return "\n\n".join(sections) + "\n"


def markdown_grid(grid: Grid) -> str:
    """The lines of a table of Markdown, without title and notes."""
    rules = ["---"] * grid.words + ["---:"] * (len(grid.heading) - grid.words)
    return "\n".join(f"| {' | '.join(map(literal, row))} |" for row in [grid.heading, rules, *grid.rows])


def literal(text: str) -> str:
    """Text that Markdown shows as it is, on one line; an underscore between letters is no mark."""
    return re.sub(r"[\\`*|<>\[\]&~$]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", " ".join(text.split()))


def to_latex(tables: Sequence[Table]) -> str:
    """One ``tabular`` with the rules of booktabs for every group."""
    parts = []
    for table in tables:
        rows = [line(table, row) for row in table.rows]
        comments = [f"% {' '.join(str(table.group).split())}", *(f"% {note}" for note in notes(table))]
        parts += [*comments, *_tabular(heading(table), rows, 2)]
        if lines := beside.budget_lines(table):
            parts += [f"% {beside.NOTE}", *_tabular(beside.HEADING, lines, 3)]
    return "\n".join(parts)


def _tabular(names: Sequence[str], rows: Sequence[Sequence[str]], words: int) -> list[str]:
    """The lines of one; of so many columns at the left, what they hold is no number."""
    return [
        rf"\begin{{tabular}}{{{'l' * words}{'r' * (len(names) - words)}}}",
        r"\toprule",
        " & ".join(map(_escape, names)) + r" \\",
        r"\midrule",
        *(" & ".join(map(_escape, row)) + r" \\" for row in rows),
        *(r"\bottomrule", r"\end{tabular}", ""),
    ]


def _escape(text: str) -> str:
    words = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    words |= {mark: f"\\{mark}" for mark in "&%$#_{}"}
    return "".join(words.get(mark, mark) for mark in " ".join(text.split()))


def to_csv(tables: Sequence[Table]) -> str:
    """One line for every row of every table; numbers in full, empty where there is none."""
    columns = list(dict.fromkeys(column for table in tables for column in (*table.columns, "average", "relative")))
    identity = ["checkpoint", "layout", "variant", "pruner", "setting", "floor", "visual_tokens", "source"]
    identity += _KEPT if any(row.kept for table in tables for row in table.rows) else ()
    file = io.StringIO()
    kinds = ("", "_published", "_difference", "_lost", "_won", "_p_value")
    fields = [*identity, *(f"{column}{kind}" for column in columns for kind in kinds)]
    writer = csv.DictWriter(file, fields, restval="", lineterminator="\n")
    writer.writeheader()
    for table in tables:
        for row in table.rows:
            values = (*table.group, row.pruner, row.label, row.is_floor, row.visual_tokens, _source(row), *_kept(row))
            record = dict(zip(identity, values, strict=False))
            for column, (measured, published) in table.entries(row).items():
                kinds = {"": measured, "_published": published, "_difference": _difference(measured, published)}
                kinds |= {f"_{name}": value for name, value in _paired(row, column).items()}
                record |= {f"{column}{kind}": value for kind, value in kinds.items()}
            writer.writerow(record)
    return file.getvalue()


_KEPT = ("tokens_per_tile", "tokens_per_tile_5", "tokens_per_tile_50", "tokens_per_tile_95", "tokens_over_layers")


def _kept(row: Row) -> tuple[float | None, ...]:
    """The numbers of ``_KEPT``."""
    kept = row.kept or Kept(None, None, None)
    return kept.mean, *(kept.quantiles or (None,) * 3), kept.over_layers


def to_json(tables: Sequence[Table]) -> str:
    """Everything the tables hold, with intervals, seeds and the files that the numbers come from."""
    groups = [
        table.group._asdict()
        | {"columns": table.columns, "notes": notes(table), "rows": [_row_record(table, row) for row in table.rows]}
        | ({"budgets": budgets} if (budgets := beside.budget_records(table)) else {})
        for table in tables
    ]
    return json.dumps({"tables": groups}, indent=1) + "\n"


def _row_record(table: Table, row: Row) -> dict[str, Any]:
    numbers = {
        key: {"value": measured, "published": published, "difference": _difference(measured, published)}
        for key, (measured, published) in table.entries(row).items()
    }
    for column, cell in row.cells.items():
        details = {name: value for name, value in vars(cell).items() if name != "kept"}
        details["paths"] = list(map(str, cell.paths))
        details |= {"kept": asdict(cell.kept)} if cell.kept else {}
        details["profile"] = cell.profile and asdict(cell.profile)
        details["paired"] = _paired(row, column) or None
        numbers[column] |= {key: value for key, value in details.items() if key != "value"}
    identity = {"pruner": row.pruner, "setting": row.label, "floor": row.is_floor, "visual_tokens": row.visual_tokens}
    return identity | {"source": _source(row), "numbers": numbers}


def _paired(row: Row, column: str) -> dict[str, float]:
    """How a row does beside no pruner, {} where that is not known."""
    found = row.cells[column].paired if column in row.cells else None
    return {} if found is None else asdict(found) | {"p_value": found.p_value}


def _source(row: Row) -> str | None:
    return row.published.source if row.published else None


def _difference(measured: float | None, published: float | None) -> float | None:
    return None if measured is None or published is None else measured - published


FORMATS: dict[str, Callable[[Sequence[Table]], str]] = {
    "markdown": to_markdown,
    "csv": to_csv,
    "json": to_json,
    "latex": to_latex,
}
