"""The flags of the pruners and of how their choice is applied, from a table that is written from the classes.

``options.json`` holds what ``add_pruning_args`` of ``llava.selecting.options`` would say, so that a command line is
read, and its help printed, without torch. ``make options`` writes it anew.
"""

import json
from argparse import ArgumentParser
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from llava.command import Number

TABLE = Path(__file__).with_name("options.json")
NATIVE, HOSTED = "native", "hosted"
"""Whose models read an option: LLaVA's own classes, or those of Transformers."""
LEAST = 16
"""Tokens per tile, from which a budget can follow the picture."""
KINDS = {"int": int, "float": float, "str": str}


@cache
def _table() -> dict[str, Any]:
    return json.loads(TABLE.read_text(encoding="utf-8"))


def pruner_names() -> list[str]:
    """The registered pruners, in their order."""
    return list(_table()["pruners"])


def inside_pruners() -> list[str]:
    """Those that read attention of the language model."""
    return [name for name, said in _table()["pruners"].items() if said["inside"]]


def option_names() -> list[str]:
    """Every option of any registered pruner, the budgets not among them."""
    return list(dict.fromkeys(option for said in _table()["pruners"].values() for option in said["options"]))


def options_of(host: str) -> list[str]:
    """The options besides the pruner that models of a host read."""
    return [flag["name"] for flag in _table()["flags"] if flag["hosts"] and host in flag["hosts"]]


def add_pruning_args(parser: ArgumentParser, *hosts: str) -> None:
    """Add the flags of the pruners, and one for each option that models of one of ``hosts`` read."""
    groups: dict[str, Any] = {}
    for flag in _table()["flags"]:
        if not flag["hosts"] or set(hosts) & {*flag["hosts"]}:
            title = flag["group"]
            group = groups[title] if title in groups else parser.add_argument_group(title)
            groups[title] = group
            group.add_argument(f"--{flag['name']}", **_arguments(flag["arguments"]))


def _arguments(said: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of ``add_argument`` that the table states."""
    given = dict(said)
    if isinstance(kind := given.get("type"), str):
        given["type"] = KINDS[kind]
    elif kind is not None:
        bounds = {name: float(value) for name, value in kind.items() if name in ("minimum", "maximum")}
        given["type"] = Number(KINDS[kind["kind"]], **bounds, above=kind["above"])
    return given
