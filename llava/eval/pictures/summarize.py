"""Collect the results on disk into one table per checkpoint and layout: pruners and budgets down, benchmarks across.

Beside what was measured stands what the pruner's paper reports, where it does. With --html, also one page to look at:
the tables, accuracy against tokens, and questions whose answers change with the pruner.
"""

import argparse
from pathlib import Path

from llava.eval.results.collect import collect
from llava.eval.results.formats import FORMATS
from llava.eval.results.parsers import table_parser
from llava.eval.results.table import build_tables
from llava.outputs import nothing_left
from llava.records import check_output, replace_file


def summarize(args: argparse.Namespace) -> None:
    """Print the tables or write them to ``args.output``, and write the page to ``args.html``."""
    if args.checkpoint or args.device:
        from llava.asking.load import check_device_flag

        check_device_flag(args.device)
    outputs = [path for path in (args.output, args.html) if path]
    with nothing_left(*outputs):
        for path in outputs:
            check_output(path)
        _summarize(args)


def _summarize(args: argparse.Namespace) -> None:
    measurements = collect(args.eval_dir)
    tables = build_tables(measurements, args.benchmarks, args.published)
    text = FORMATS[args.format](tables)
    if args.output:
        replace_file(args.output, text)
    else:
        print(text, end="")
    if args.html:
        # Pictures need matplotlib, of the extra eval; looking at selections needs the model.
        from llava.eval.pictures.page import write_report

        write_report(Path(args.html), tables, measurements, args)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    return table_parser()
