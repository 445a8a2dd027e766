"""The papers' numbers, to set beside what is measured here by the same protocol."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from llava.eval.results.collect import Group

FILE = Path(__file__).with_name("paper_numbers.json")
UNPRUNED = "none"
NO_TOKENS = "no visual tokens"
MEASURED_BY = "LLaVA's scripts"
"""The evaluation that runs of this package repeat: LLaVA's questions, prompts and scores."""
CENTERED = "centered"


@dataclass(frozen=True)
class Protocol:
    """How numbers came about that can be compared with each other.

    Args:
        name: by which rows name it.
        title: for headings.
        source: where the numbers were read, and what is particular to them.
        evaluation: whose questions, prompts and scores.
        by: who measured.
        own: methods, or ``centered``, that are those of ``by``.
    """

    name: str
    title: str
    source: str
    evaluation: str
    by: str
    own: Sequence[str]


@dataclass(frozen=True)
class Published:
    """One row of a paper's table.

    Args:
        checkpoint: the model's name as the scripts' folders have it.
        layout: of the tiles that the paper measured, ``native`` or ``fixed``.
        method: a pruner's name where it is one of this package, else the paper's name for it.
        visual_token_num: tokens kept per tile or frame, None for all or a share.
        protocol: by which it was measured.
        values: by benchmark, in its own points.
        keep_ratio: share of the tokens kept, None for a number or all.
        centered: whether the method's features were centred.
        average: mean percentage of the row without a pruner, as printed; None where it is not.
        over: the benchmarks that this mean is over; none where the paper's were not read.
    """

    checkpoint: str
    layout: str
    method: str
    visual_token_num: int | None
    protocol: Protocol
    values: Mapping[str, float] = field(default_factory=dict)
    keep_ratio: float | None = None
    centered: bool = False
    average: float | None = None
    over: Sequence[str] = ()

    @property
    def source(self) -> str:
        """Where it was read."""
        return self.protocol.source

    @property
    def claim(self) -> str:
        """Whose it is: of the method's own authors, or of others who ran it again."""
        own = self.method in self.protocol.own or (self.centered and CENTERED in self.protocol.own)
        return "its authors' own claim" if own else f"third-party run, by {self.protocol.by}"


@cache
def protocols() -> dict[str, Protocol]:
    """Every protocol of ``paper_numbers.json`` by its name."""
    return {name: Protocol(name, **said) for name, said in _content()["protocols"].items()}


@cache
def published_rows() -> tuple[Published, ...]:
    """Every row of ``paper_numbers.json``; of several for one method and budget, the first is the one to compare with.

    The file holds what was read off the papers' own tables. Numbers known from memory or at second hand are not in it.
    """
    sets, rows = _content()["sets"], []
    for row in _content()["rows"]:
        row = dict(row)
        row |= {"protocol": protocols()[row.pop("source")], "over": sets.get(row.pop("over", ""), ())}
        rows.append(Published(**row))
    return tuple(rows)


@cache
def _content() -> dict:
    return json.loads(FILE.read_text(encoding="utf-8"))


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
    """The rows for a checkpoint and layout that were measured as it is here; none for a variant, which no paper has."""
    return [
        row
        for row in published_rows()
        if group == (row.checkpoint, row.layout, "") and row.protocol.evaluation == MEASURED_BY and not row.centered
    ]
