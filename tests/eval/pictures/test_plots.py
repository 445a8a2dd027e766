import re

import pytest

from llava.eval.pictures.plots import draw_table
from llava.eval.results.collect import Group
from llava.eval.results.published import find_published
from llava.eval.results.table import Cell, Row, Table

COLOURS = {"cdpruner": "#0072b2", "divprune": "#d55e00", "vispruner": "#009e73"}
LLAVA = Group("llava-v1.5-7b", "native", "")


def table(*places, columns=("pope",), tokens=64.0):
    def row(place):
        pruner, label = place.split("/")
        cell = Cell(80.0, (79.0, 81.0), 1, 0, tokens, ())
        return Row(pruner, label, dict.fromkeys(columns, cell), find_published(LLAVA, pruner, label))

    return Table(LLAVA, columns, tuple(map(row, places)))


def colours_in(svg):
    return {name for name, colour in COLOURS.items() if f"stroke: {colour}" in svg}


def test_every_pruner_that_was_measured_has_its_line():
    svg = draw_table(table("none/full", "cdpruner/vtn_192", "divprune/vtn_192"))
    assert svg.lstrip().startswith("<?xml") and colours_in(svg) == {"cdpruner", "divprune"}


def test_every_benchmark_has_its_panel():
    tables = [table("cdpruner/vtn_192", columns=columns) for columns in (("pope",), ("pope", "gqa", "mme", "sqa"))]
    panels = [len(re.findall(r'<g id="axes_\d+">', draw_table(each))) for each in tables]
    assert panels == [1, 4]


def test_a_published_number_is_a_hollow_mark_of_its_pruners_colour():
    hollow = f"fill-opacity: 0; stroke: {COLOURS['cdpruner']}"
    with_number, without = draw_table(table("cdpruner/vtn_64")), draw_table(table("cdpruner/vtn_192"))
    assert hollow in with_number and hollow not in without


@pytest.mark.parametrize("tokens", [0.0, None])
def test_no_tokens_and_an_unknown_number_of_tokens_can_be_drawn(tokens):
    svg = draw_table(table("none/full", "cdpruner/vtn_192", tokens=tokens))
    assert ("cdpruner" in colours_in(svg)) == (tokens is not None)


def test_a_budget_that_follows_the_picture_has_a_line_of_its_own():
    places = [f"divprune/vtn_{size}{more}" for size in (64, 128) for more in ("", f"_budgetspectral_erank_ref{size}.5")]
    text = draw_table(table(*places))
    assert text.count("<!-- divprune budgetspectral -->") == 1 and text.count("<!-- divprune -->") == 1
