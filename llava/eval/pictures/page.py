"""One page, in one file, to look at results: tables, plots, and what pruners do to questions whose answers change."""

import logging
import re
from argparse import Namespace
from collections.abc import Sequence
from html import escape
from pathlib import Path

from llava.eval.pictures.gallery import Gallery, data_uri
from llava.eval.results import beside
from llava.eval.results.collect import Group, Measurement
from llava.eval.results.formats import notes
from llava.eval.results.grids import heading, line
from llava.eval.results.table import Table
from llava.eval.tasks.tables import import_extra
from llava.records import local_path, replace_file

logger = logging.getLogger(__name__)

STYLE = Path(__file__).with_name("page.css")


def write_report(
    path: str | Path, tables: Sequence[Table], measurements: Sequence[Measurement], args: Namespace
) -> None:
    """Write the page.

    Args:
        measurements: behind the tables.
        args: ``eval_dir``, ``data_dir``, ``samples``, ``checkpoint`` and ``device`` of the command line.

    Raises:
        InputError: matplotlib is not installed, or ``checkpoint`` is not that of any result or does not load.
    """
    import_extra("matplotlib")
    from llava.eval.pictures.plots import draw_table

    eval_dir = local_path(args.eval_dir)
    data_dir = local_path(args.data_dir or args.eval_dir)
    gallery = Gallery(measurements, eval_dir, data_dir, args.samples, args.checkpoint, args.device)
    body = ["<nav>", *(f'<a href="#{_anchor(t.group)}">{escape(str(t.group))}</a>' for t in tables), "</nav>"]
    for table in tables:
        plot = data_uri(draw_table(table).encode(), "svg+xml")
        body += [
            f'<h2 id="{_anchor(table.group)}">{escape(str(table.group))}</h2>',
            *_table(table),
            f'<p><img class="plot" alt="score against visual tokens, by benchmark" src="{plot}"></p>',
            *(gallery.section(table, column) for column in table.columns if args.samples),
        ]
    replace_file(path, _document(body, gallery.styles))
    logger.info("page: %s", path)


def _table(table: Table) -> list[str]:
    head = "".join(f"<th>{escape(name)}</th>" for name in heading(table))
    rows = []
    for row in table.rows:
        kind = ' class="floor"' if row.is_floor else ""
        cells = "".join(f"<td>{escape(text)}</td>" for text in line(table, row))
        rows.append(f"<tr{kind}>{cells}</tr>")
    budgets = [[f"<td>{escape(text)}</td>" for text in line] for line in beside.budget_lines(table)]
    remarks = [f'<p class="note">{escape(note)}</p>' for note in notes(table)]
    page = ['<div class="wide"><table>', f"<tr>{head}</tr>", *rows, "</table></div>", *remarks]
    if budgets:
        names = "".join(f"<th>{escape(name)}</th>" for name in beside.HEADING)
        page += [f'<p class="note">{escape(beside.NOTE)}</p>', '<div class="wide"><table>', f"<tr>{names}</tr>"]
        page += [*(f"<tr>{''.join(cells)}</tr>" for cells in budgets), "</table></div>"]
    return page


def _anchor(group: Group) -> str:
    return re.sub(r"[^\w.-]+", "-", str(group))


def _document(body: Sequence[str], styles: Sequence[str]) -> str:
    style = "\n".join([STYLE.read_text(encoding="utf-8"), *styles])
    head = f'<meta charset="utf-8">\n<title>Visual-token pruning</title>\n<style>\n{style}\n</style>'
    return "\n".join(
        ["<!doctype html>", '<html lang="en">', f"<head>\n{head}\n</head>", "<body>", "<h1>Visual-token pruning</h1>"]
        + [*body, "</body>", "</html>", ""]
    )
