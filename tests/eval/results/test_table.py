from pathlib import Path

import pytest

from llava.eval.results.collect import Group, Measurement
from llava.eval.results.grids import line
from llava.eval.results.setting import Setting
from llava.eval.results.table import build_tables, title
from llava.records import InputError

LLAVA = Group("llava-v1.5-7b", "native", "")


def result(column, value, place="none/full", group=LLAVA, count=100, tokens=64.0, missing=0):
    pruner, _, name = place.partition("/")
    label, _, seed = name.partition("_seed")
    path, setting = Path(column, place), Setting(pruner, label, group.layout, group.variant, int(seed or 0))
    return Measurement(group, setting, column, value, count, (0, 100), missing, tokens, path)


def places(table):
    return [f"{row.pruner}/{row.label}" for row in table.rows]


def test_an_average_is_the_mean_in_percent_with_mme_in_twentieths():
    (table,) = build_tables([result("pope", 80.0), result("mme", 1200.0), result("gqa", 40.0)])
    assert table.columns == ("gqa", "pope", "mme")
    assert table.entries(table.rows[0])["average"][0] == pytest.approx((40 + 80 + 60) / 3)


def test_relative_is_the_mean_of_the_benchmarks_percentages_of_the_unpruned_row_measured_here():
    both = [result("pope", 80.0), result("gqa", 50.0)]
    both += [result("pope", 60.0, "divprune/vtn_64"), result("gqa", 50.0, "divprune/vtn_64")]
    (table,) = build_tables(both)
    assert [table.entries(row)["relative"][0] for row in table.rows] == pytest.approx([100, (75 + 100) / 2])


def test_a_row_that_lacks_a_benchmark_has_no_average():
    (table,) = build_tables([result("pope", 80.0), result("gqa", 50.0), result("pope", 60.0, "divprune/vtn_64")])
    entries = table.entries(table.rows[1])
    assert entries["average"][0] is None and entries["relative"][0] is None
    (table,) = build_tables(
        [result("pope", 80.0), result("gqa", 50.0), result("pope", 60.0, "divprune/vtn_64")], ["pope"]
    )
    assert [table.entries(row)["average"][0] for row in table.rows] == [80, 60]


def test_checkpoints_layouts_and_variants_never_share_a_table():
    groups = [LLAVA, Group("llava-v1.5-13b", "native", ""), Group("llava-v1.6-vicuna-7b", "native", "")]
    groups += [Group("llava-v1.6-vicuna-7b", "fixed", ""), Group("llava-v1.5-7b", "native", "dtypebfloat16")]
    tables = build_tables([result("pope", 10.0 * i, group=group) for i, group in enumerate(groups, 1)])
    assert sorted(table.group for table in tables) == sorted(groups)
    assert sorted(table.entries(row)["average"][0] for table in tables for row in table.rows) == [10, 20, 30, 40, 50]
    pruned = result("pope", 10.0, "cdpruner/vtn_64", group=groups[3])
    tables = build_tables([result("pope", 80.0, group=groups[2]), pruned])
    assert [table.entries(table.rows[0])["relative"][0] for table in tables] == [None, 100]


def test_seeds_of_random_are_averaged():
    seeds = [
        result("pope", value, f"random/vtn_64{seed}")
        for value, seed in [(50.0, ""), (60.0, "_seed1"), (70.0, "_seed2")]
    ]
    (table,) = build_tables(seeds)
    (row,) = table.rows
    cell = row.cells["pope"]
    assert (row.label, cell.value, cell.seeds, cell.ci95, len(cell.paths)) == ("vtn_64", 60.0, 3, None, 3)


def test_unpruned_comes_first_then_large_budgets_and_the_floors_last():
    names = ["random/vtn_64", "cdpruner/vtn_32", "none/full", "vispruner/vtn_128", "cdpruner/vtn_128", "uniform/vtn_0"]
    (table,) = build_tables([result("pope", 1.0, name) for name in names])
    assert places(table) == [names[i] for i in (2, 4, 3, 1, 0, 5)]
    assert [row.is_floor for row in table.rows] == [False] * 4 + [True] * 2


def test_results_over_different_numbers_of_questions_are_refused():
    with pytest.raises(InputError, match=r"pope: pope/none/full scores 100 questions, pope/cdpruner/vtn_64 60"):
        build_tables([result("pope", 80.0), result("pope", 70.0, "cdpruner/vtn_64", count=60)])


def test_the_first_questions_alone_are_a_table_of_their_own_whose_rows_say_so():
    first = Group("llava-v1.5-7b", "native", "dtypebfloat16_limit60")
    tables = build_tables(
        [
            result("pope", 80.0),
            result("pope", 70.0, "cdpruner/vtn_64"),
            result("pope", 90.0, "cdpruner/vtn_64", first, count=60),
        ]
    )
    assert [[line(table, row)[1] for row in table.rows] for table in tables] == [
        ["full", "vtn_64"],
        ["vtn_64_limit60"],
    ]
    assert tables[1].unpruned == {} and tables[1].rows[0].published is None


def test_two_results_for_one_place_are_refused():
    with pytest.raises(InputError, match="two results for one place"):
        build_tables([result("pope", 80.0), result("pope", 70.0)])


def test_a_column_that_was_not_measured_is_refused():
    with pytest.raises(InputError, match="no results for gqa; there are some for pope"):
        build_tables([result("pope", 80.0)], ["gqa"])


def test_published_numbers_stand_beside_measured_ones():
    (table,) = build_tables([result("pope", 88.0, "cdpruner/vtn_64"), result("mme", 1400.0, "cdpruner/vtn_64")])
    entries = table.entries(table.rows[0])
    assert entries["pope"] == (88.0, 87.5) and entries["mme"] == (1400.0, 1415.1)
    assert entries["average"] == pytest.approx(((88 + 70) / 2, (87.5 + 1415.1 / 20) / 2))
    assert entries["relative"] == (None, pytest.approx(100 * (87.5 / 85.9 + 1415.1 / 1506.5) / 2))


def test_rows_that_only_papers_have_are_added_on_request():
    measured = [result("pope", 88.0, "cdpruner/vtn_64")]
    assert places(build_tables(measured)[0]) == ["cdpruner/vtn_64"]
    (table,) = build_tables(measured, with_published=True)
    assert places(table).count("cdpruner/vtn_64") == 1
    assert {"FastV/vtn_64", "cdpruner/vtn_128", "none/full"} <= set(places(table))
    (fastv,) = [row for row in table.rows if (row.pruner, row.label) == ("FastV", "vtn_64")]
    assert table.entries(fastv)["pope"] == (None, 35.5) and table.unpruned == {}


def test_headings_name_the_split_where_it_is_not_the_usual_one():
    assert [title(column) for column in ("mme", "qbench (test)", "mine")] == ["MME", "Q-Bench (test)", "mine"]
