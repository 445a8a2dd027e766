"""The papers' numbers as a document: protocol by protocol, every mean with the benchmarks that it is over."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from itertools import groupby
from statistics import fmean

from llava.eval.results.parsers import published_parser
from llava.eval.results.published import CENTERED, UNPRUNED, Protocol, Published, protocols, published_rows
from llava.eval.results.table import title
from llava.records import replace_file

TITLES = {
    "ocrbench": "OCRBench",
    "seed_image": "SEED-I",
    "seed_video": "SEED-V",
    "mmmu": "MMMU",
    "mme_total": "MME (total)",
    "mvbench": "MVBench",
    "videomme": "VideoMME",
    "egoschema": "EgoSchema",
}
"""Headings of benchmarks that no task of this package is."""
HEAD = """# Published numbers

What papers report, by protocol. `llava/eval/results/paper_numbers.json` holds the numbers, and
`python -m llava.eval published` writes this document. None of them was measured here. Numbers of two protocols say
nothing about each other: one method at one budget can differ by several points between them. Beside what is measured
with this package, `python -m llava.eval table` sets only what was measured by LLaVA's scripts, too.

Tokens are those kept per tile or frame, or a share. A number is in its benchmark's own points. Means are percentages of
the row without a pruner, and say over which benchmarks; a mean over some is not to be set beside one over others. An
empty cell is a number that could not be read."""


def document() -> str:
    """The whole document, as Markdown."""
    parts = [HEAD]
    for protocol in protocols().values():
        rows = [row for row in published_rows() if row.protocol is protocol]
        parts += [f"## {protocol.title}", _told(protocol)]
        for place, members in groupby(sorted(rows, key=_place), _place):
            parts += _section(place, list(members))
    return "\n\n".join(parts) + "\n"


def _told(protocol: Protocol) -> str:
    return f"{protocol.source}. Evaluation: {protocol.evaluation}. Run by {protocol.by}."


def _place(row: Published) -> tuple[str, str]:
    return row.checkpoint, row.layout


def _section(place: tuple[str, str], rows: Sequence[Published]) -> list[str]:
    """The table of one checkpoint, and what its means are over."""
    columns = list(dict.fromkeys(name for row in rows for name in row.values))
    told = [row for row in rows if row.values]
    shared = [name for name in columns if all(name in row.values for row in told)]
    reference = next((row.values for row in rows if row.method == UNPRUNED), {})
    printed = any(row.average is not None for row in rows)
    computed = len(shared) > 1 and len(told) > 2 and bool(reference) and (not printed or len(shared) < len(columns))
    heads = ["method", "tokens", *map(_title, columns), *["mean, as printed"] * printed]
    heads += [f"mean of {len(shared)}"] * computed
    lines = [[*heads, "whose claim"], ["---", *["---:"] * (len(heads) - 1), "---"]]
    for row in sorted(rows, key=_order):
        cells = [_number(row.values[name]) if name in row.values else "" for name in columns]
        cells += ["" if row.average is None else f"{row.average:.1f}"] * printed
        cells += [_mean(row, reference, shared)] if computed else []
        lines.append([_method(row), _tokens(row), *cells, "" if row.method == UNPRUNED else row.claim])
    notes = [f"The printed means are over {_over(rows)}."] if printed else []
    if computed:
        notes.append(f"The mean of {len(shared)}, computed here, is over {_listed(shared)}.")
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    layout = "" if place[1] == "native" else f", {place[1]} tiles"
    return [f"### {place[0]}{layout}", table, *([" ".join(notes)] if notes else [])]


def _number(value: float) -> str:
    return f"{value:.1f}" if value < 1000 else f"{value:g}"


def _mean(row: Published, reference: dict[str, float], names: Sequence[str]) -> str:
    if not row.values:
        return ""
    return f"{100 * fmean(row.values[name] / reference[name] for name in names):.1f}"


def _over(rows: Sequence[Published]) -> str:
    sets = {tuple(row.over) for row in rows if row.average is not None}
    (over,) = sets  # one paper prints one mean of a model
    return _listed(over) if over else "benchmarks that were not read"


def _listed(names: Sequence[str]) -> str:
    *others, last = map(_title, names)
    return f"{', '.join(others)} and {last}" if others else last


def _title(name: str) -> str:
    return TITLES.get(name) or title(name)


def _method(row: Published) -> str:
    return f"{row.method}, {CENTERED}" if row.centered else row.method


def _tokens(row: Published) -> str:
    if row.keep_ratio is not None:
        return f"{100 * row.keep_ratio:g} %"
    return "all" if row.visual_token_num is None else str(row.visual_token_num)


def _order(row: Published) -> tuple:
    """Without a pruner first, then larger budgets before smaller ones; within one, as the file has them."""
    whole = row.visual_token_num is None and row.keep_ratio is None
    return not whole, -(row.visual_token_num or 0), -(row.keep_ratio or 0)


def print_document(args: Namespace) -> None:
    """Print the document, or write it to ``args.output``."""
    if args.output:
        replace_file(args.output, document())
    else:
        print(document(), end="")


def build_parser() -> ArgumentParser:
    """The command line."""
    return published_parser()
