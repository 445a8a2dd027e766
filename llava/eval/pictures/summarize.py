"""Collect the results on disk into one table per checkpoint and layout: pruners and budgets down, benchmarks across.

Beside what was measured stands what the pruner's paper reports, where it does. With --html, also the page that
``report`` writes.
"""

import argparse

from llava.eval.pictures.contents import outputs_ready, read_report, read_tables
from llava.eval.pictures.page import to_html
from llava.eval.results.formats import FORMATS
from llava.eval.results.parsers import table_parser
from llava.records import replace_file


def summarize(args: argparse.Namespace) -> None:
    """Print the tables or write them to ``args.output``, and write the page to ``args.html``."""
    with outputs_ready(args, args.output, args.html):
        tables, measurements = read_tables(args)
        text = FORMATS[args.format](tables)
        if args.output:
            replace_file(args.output, text)
        else:
            print(text, end="")
        if args.html:
            replace_file(args.html, to_html(read_report(tables, measurements, args)))


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    return table_parser()
