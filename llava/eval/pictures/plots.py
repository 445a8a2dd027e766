"""Accuracy against visual tokens, benchmark by benchmark. Needs the extra ``eval``."""

import io
import re
from collections.abc import Iterator

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from llava.eval.pictures.figures import STYLES, literal
from llava.eval.results.published import UNPRUNED
from llava.eval.results.table import Row, Table, title

PANELS_PER_ROW = 3
NARROWEST = 6.4  # inches, which two names of settings take beside each other
CLOSE = 1.1  # ratio of two numbers of tokens of which the axis names one


def draw_table(table: Table) -> str:
    """Draw one panel per benchmark, and return the picture as SVG.

    A line joins the budgets of a pruner, with 95 % intervals where there are some; hollow marks are published numbers;
    the dotted level is the model without a pruner.
    """
    columns = min(PANELS_PER_ROW, len(table.columns))
    rows = -(-len(table.columns) // columns)
    lines = len({name for column in table.columns for name, _ in _series(table, column)}) + 1
    legend_columns = 2 if columns == 1 else 3 * columns
    width, legend_height = max(NARROWEST, 4.6 * columns), 0.2 * -(-lines // legend_columns)
    figure = Figure(figsize=(width, 3.4 * rows + legend_height + 0.4), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, column in zip(panels, table.columns, strict=False):
        _draw_column(axes, table, column)
    for axes in panels[len(table.columns) :]:
        axes.set_axis_off()
    named = {label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=legend_columns, fontsize="small")
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def _draw_column(axes: Axes, table: Table, column: str) -> None:
    axes.set(title=literal(title(column)), xlabel="visual tokens", ylabel="score")
    axes.grid(alpha=0.3)
    ticks = set()
    for name, rows in _series(table, column):
        pruner, _, options = name.partition(" ")
        style = {"marker": "."} | STYLES.get(pruner, {}) | ({"linestyle": "-."} if options else {})
        tokens = [row.cells[column].visual_tokens for row in rows]
        values = [row.cells[column].value for row in rows]
        drawn = axes.errorbar(
            tokens, values, _spread(rows, column), label=literal(name), capsize=2, markersize=4, **style
        )
        printed = [row.published.values.get(column) if row.published else None for row in rows]
        for token, value in zip(tokens, printed, strict=True):
            if value is not None:
                axes.plot(token, value, "o", markerfacecolor="none", color=drawn.lines[0].get_color())
        ticks.update(tokens)
    if column in table.unpruned:
        axes.axhline(table.unpruned[column], color="black", linestyle=":", label=UNPRUNED)
    if positive := [tick for tick in ticks if tick]:
        axes.set_xscale("symlog", base=2, linthresh=min(positive))  # linear down to 0 tokens
    named = _apart(sorted(ticks))
    axes.set_xticks(named, [f"{tick:.0f}" for tick in named])


def _apart(ticks: list[float]) -> list[float]:
    """Rising numbers without those that are close to the one before."""
    found: list[float] = []
    for tick in ticks:
        if not found or not found[-1] or tick > CLOSE * found[-1]:
            found.append(tick)
    return found


def _series(table: Table, column: str) -> Iterator[tuple[str, list[Row]]]:
    """The rows of every pruner with the same options, by rising number of tokens."""
    lines: dict[str, list[Row]] = {}
    for row in table.rows:
        if row.pruner != UNPRUNED and column in row.cells and row.cells[column].visual_tokens is not None:
            label = re.sub(r"_erank_ref[^_]+", "", row.label)  # one for each size: a line is of all
            _kind, _size, *options = label.split("_")
            lines.setdefault(" ".join([row.pruner, *options]), []).append(row)
    for name, rows in lines.items():
        yield name, sorted(rows, key=lambda row: row.cells[column].visual_tokens)


def _spread(rows: list[Row], column: str) -> list[list[float]]:
    """How far the intervals reach below and above the values; 0 where there is none."""
    cells = [row.cells[column] for row in rows]
    low = [max(cell.value - cell.ci95[0], 0) if cell.ci95 else 0 for cell in cells]
    high = [max(cell.ci95[1] - cell.value, 0) if cell.ci95 else 0 for cell in cells]
    return [low, high]
