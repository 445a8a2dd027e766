"""Write llava/flags/options.json from the pruners' classes and from PruningOptions, as ``make options`` does."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from llava.command import Number, Parser, run_program
from llava.flags.pruning import TABLE
from llava.pruners import PRUNERS, add_pruner_args, option_defaults
from llava.pruners.cues import INSIDE_CUES
from llava.records import replace_file
from llava.selecting.options import HOSTS, PruningOptions, add_pruning_args


class Noted:
    """Stands for a parser, and notes what would be added to it."""

    def __init__(self, group: str = "", flags: dict[str, Any] | None = None):
        self.group, self.flags = group, {} if flags is None else flags

    def add_argument_group(self, title: str) -> "Noted":
        return Noted(title, self.flags)

    def add_argument(self, flag: str, **arguments: Any) -> None:
        self.flags[flag.removeprefix("--")] = {"group": self.group, "arguments": described(arguments)}


def described(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of ``add_argument`` as the table states them."""
    return {name: _kind(value) if name == "type" else value for name, value in arguments.items()}


def _kind(kind: Any) -> Any:
    if isinstance(kind, Number):
        bounds = {"minimum": kind.minimum} | ({} if kind.maximum == float("inf") else {"maximum": kind.maximum})
        return {"kind": kind.kind.__name__, **bounds, "above": kind.above}
    return kind.__name__


def table() -> dict[str, Any]:
    """The content of the table."""
    noted: dict[str, Any] = {host: Noted() for host in HOSTS}
    for host, parser in noted.items():
        add_pruning_args(parser, host)
    own: Any = Noted()
    add_pruner_args(own)
    flags = []
    merged = {name: said for parser in noted.values() for name, said in parser.flags.items()}
    order = [*own.flags, *(each.name for each in fields(PruningOptions))]
    for name in sorted(merged, key=order.index):
        readers = [] if name in own.flags else [host for host, parser in noted.items() if name in parser.flags]
        flags.append({"name": name, "hosts": readers, **merged[name]})
    pruners = {
        name: {"inside": bool(cls.needs & INSIDE_CUES), "options": list(option_defaults(cls))}
        for name, cls in PRUNERS.items()
    }
    return {"written by": "make options, from the classes; never by hand", "flags": flags, "pruners": pruners}


def text() -> str:
    """The content of the file."""
    return json.dumps(table(), indent=1, ensure_ascii=False) + "\n"


def write(args: Namespace) -> None:
    """Write the table to ``args.output``."""
    replace_file(args.output, text())


def build_parser() -> ArgumentParser:
    """The command line."""
    parser = Parser(prog="python scripts/options_table.py", description=__doc__)
    parser.add_argument("--output", type=Path, default=TABLE, help="the file to write")
    return parser


if __name__ == "__main__":
    run_program(build_parser(), write)
