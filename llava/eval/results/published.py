"""The papers' numbers, to set beside what is measured here."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from llava.eval.results.collect import Group

FILE = Path(__file__).with_name("paper_numbers.json")
UNPRUNED = "none"
NO_TOKENS = "no visual tokens"


@dataclass(frozen=True)
class Published:
    """One row of a paper's table.

    Args:
        checkpoint: the model's name as the scripts' folders have it.
        layout: of the tiles that the paper measured, ``native`` or ``fixed``.
        method: a pruner's name where it is one of this package, else the paper's name for it.
        visual_token_num: tokens kept per tile, None for all.
        source: where it was read.
        values: by benchmark.
    """

    checkpoint: str
    layout: str
    method: str
    visual_token_num: int | None
    source: str
    values: Mapping[str, float]


@cache
def published_rows() -> tuple[Published, ...]:
    """Every row of ``paper_numbers.json``; of several for one method and budget, the first is the one to compare with.

    The file holds what was read off the papers' own tables. Numbers known from memory or at second hand are not in it.
    """
    content = json.loads(FILE.read_text(encoding="utf-8"))
    return tuple(Published(**row | {"source": content["sources"][row["source"]]}) for row in content["rows"])


def find_published(group: Group, pruner: str, label: str) -> Published | None:
    """What a paper reports for a pruner at a setting, options of the pruner being at their defaults."""
    if pruner == UNPRUNED:
        wanted = (UNPRUNED, None)
    elif label == "vtn_0":
        wanted = (NO_TOKENS, 0)
    else:
        budget = label.removeprefix("vtn_")
        wanted = (pruner, int(budget) if budget.isdecimal() else label)
    rows = published_of(group)
    return next((row for row in rows if (row.method, row.visual_token_num) == wanted), None)


def published_of(group: Group) -> list[Published]:
    """The rows for a checkpoint and layout; none for a variant, which no paper measured."""
    return [row for row in published_rows() if group == (row.checkpoint, row.layout, "")]
