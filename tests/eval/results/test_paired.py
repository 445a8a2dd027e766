"""The comparison with no pruner: counts of differing questions, and the binomial behind the p-value."""

import csv
import io
import json
from fractions import Fraction
from itertools import product
from pathlib import Path

import pytest

from llava.eval.results.collect import Group, Measurement
from llava.eval.results.formats import FORMATS, notes
from llava.eval.results.grids import line
from llava.eval.results.paired import Paired, compare
from llava.eval.results.setting import Setting
from llava.eval.results.table import build_tables

LLAVA = Group("llava-v1.5-7b", "native", "")


@pytest.mark.parametrize(
    ("lost", "won", "p_value"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),  # 2 / 2
        (5, 0, 2 / 32),
        (0, 6, 2 / 64),
        (8, 2, 2 * (1 + 10 + 45) / 1024),
        (2, 8, 2 * (1 + 10 + 45) / 1024),
        (3, 3, 1.0),  # 2 * (1 + 6 + 15 + 20) / 64 is more than 1
        (7, 4, 2 * (1 + 11 + 55 + 165 + 330) / 2048),
    ],
)
def test_the_p_value_is_the_binomial_computed_on_paper(lost, won, p_value):
    assert Paired(lost, won).p_value == pytest.approx(p_value, rel=1e-15)


def test_the_p_value_is_the_share_of_all_outcomes_that_are_as_uneven():
    for total in range(1, 11):
        for lost in range(total + 1):
            uneven = [abs(2 * sum(falls) - total) for falls in product((0, 1), repeat=total)]
            share = Fraction(sum(each >= abs(2 * lost - total) for each in uneven), len(uneven))
            assert Paired(lost, total - lost).p_value == float(share)


def test_thousands_of_questions_neither_overflow_nor_take_long():
    assert Paired(5000, 5000).p_value == 1.0
    assert 0 < Paired(5200, 4800).p_value == Paired(4800, 5200).p_value < 1e-4
    assert Paired(9000, 100).p_value == 0.0  # less than the smallest float


def test_discordant_questions_are_those_that_one_run_alone_has_right():
    unpruned = dict(zip("abcdefgh", (1, 1, 1, 0, 0, 1, 0, 1), strict=True))
    pruned = dict(zip("hgfedcba", (0, 1, 1, 0, 0, 1, 1, 0), strict=True))
    assert compare(unpruned, pruned) == Paired(lost=2, won=1)  # a and h; g
    assert compare(pruned, unpruned) == Paired(lost=1, won=2)


def test_of_partly_right_answers_the_better_one_counts():
    assert compare({"a": 0.6, "b": 0.3, "c": 1.0}, {"a": 0.3, "b": 0.3, "c": 0.9}) == Paired(2, 0)


def test_other_questions_are_not_compared():
    assert compare({"a": 1.0}, {"b": 1.0}) is None and compare({"a": 1.0}, {"a": 1.0, "b": 0.0}) is None
    assert compare(None, {"a": 1.0}) is None and compare({"a": 1.0}, {}) is None
    with pytest.raises(ValueError, match=r"zip\(\)"):
        Paired.of([1.0], [1.0, 0.0])


def result(place, scores, seed=0, column="shapes"):
    pruner, _, label = place.partition("/")
    setting, value = Setting(pruner, label, "native", "", seed), 100 * sum(scores.values()) / max(1, len(scores))
    path = Path(place, str(seed))
    return Measurement(LLAVA, setting, column, value, 10, None, 0, 64.0, path, scores=scores)


def scores(text):
    return {f"q{number}": float(mark) for number, mark in enumerate(text)}


@pytest.fixture
def table():
    (table,) = build_tables(
        [
            result("none/full", scores("1111111100")),
            result("cdpruner/vtn_64", scores("0000000111")),  # 7 lost, 2 won
            result("divprune/vtn_64", scores("1111111100")),
            result("vispruner/vtn_64", {"other": 1.0}),
            result("random/vtn_64", scores("1100000000")),
            result("random/vtn_64", scores("1000000000"), seed=1),
        ]
    )
    return table


def test_a_row_says_beside_its_accuracy_how_it_does_question_by_question(table):
    shown = {row.pruner: line(table, row)[3] for row in table.rows}
    assert shown["cdpruner"] == "30.0 [-7 +2, p=0.180]"  # 2 * (1 + 9 + 36) / 512
    assert shown["divprune"] == "80.0 [-0 +0, p=1.000]"
    assert "[" not in shown["none"] + shown["vispruner"] + shown["random"]
    assert any("McNemar" in note for note in notes(table))
    assert str(Paired(40, 3)).endswith("p<0.001]")


def test_csv_and_json_hold_counts_and_p_value(table):
    rows = list(csv.DictReader(io.StringIO(FORMATS["csv"]([table]))))
    by_pruner = {row["pruner"]: row for row in rows}
    assert (by_pruner["cdpruner"]["shapes_lost"], by_pruner["cdpruner"]["shapes_won"]) == ("7", "2")
    assert float(by_pruner["cdpruner"]["shapes_p_value"]) == 92 / 512 and by_pruner["none"]["shapes_p_value"] == ""
    (record,) = json.loads(FORMATS["json"]([table]))["tables"]
    found = {row["pruner"]: row["numbers"]["shapes"]["paired"] for row in record["rows"]}
    assert found["cdpruner"] == {"lost": 7, "won": 2, "p_value": 92 / 512} and found["none"] is None


def test_without_an_unpruned_run_nothing_is_compared():
    (table,) = build_tables([result("cdpruner/vtn_64", scores("0011"))])
    assert "[" not in line(table, table.rows[0])[3] and not any("McNemar" in note for note in notes(table))
