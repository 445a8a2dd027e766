import csv
import io
import json
import re
from dataclasses import replace

import pytest

from llava.eval.results.collect import Group
from llava.eval.results.formats import FORMATS, _escape, literal, notes
from llava.eval.results.grids import TIME_HEADING, TIME_NOTE, heading, line, memory, scores, show, times
from llava.eval.results.paired import Paired
from llava.eval.results.profile import KEYS, Profile
from llava.eval.results.published import find_published
from llava.eval.results.table import Cell, Row, Table

LLAVA = Group("llava-v1.5-7b", "native", "")


def cell(value, seeds=1, unanswered=0):
    return Cell(value, (value - 1, value + 1), seeds, unanswered, 64.0, ("a.json",))


@pytest.fixture
def table():
    """Unpruned, CDPruner, and random without MME: 90 and 1500, 87 and 1400, 60."""
    rows = [
        Row("none", "full", {"pope": cell(90.0), "mme": cell(1500.0)}, None),
        Row(
            "cdpruner",
            "vtn_64",
            {"pope": cell(87.0, unanswered=2), "mme": cell(1400.0)},
            find_published(LLAVA, "cdpruner", "vtn_64"),
        ),
        Row("random", "vtn_64", {"pope": cell(60.0, seeds=3)}, None),
    ]
    return Table(LLAVA, ("pope", "mme"), tuple(rows))


def test_a_number_is_shown_with_the_published_one_and_the_difference():
    assert show(87.04, 87.5) == "87.0 (87.5, -0.5)"
    assert show(87.04, None) == "87.0" and show(None, 87.5) == "(87.5)" and show(None, None) == ""


def test_a_line_marks_floors_seeds_and_unanswered_questions(table):
    assert heading(table) == ["pruner", "setting", "tokens", "POPE", "MME", "average", "% of unpruned"]
    assert line(table, table.rows[0]) == ["none", "full", "64", "90.0", "1500.0", "82.5", "100.0"]
    cdpruner = line(table, table.rows[1])
    assert cdpruner[3:5] == ["87.0 (87.5, -0.5)*", "1400.0 (1415.1, -15.1)"]
    assert cdpruner[5] == "78.5 (79.1, -0.6)" and cdpruner[6].startswith("95.0 (")
    assert line(table, table.rows[2]) == ["random, 3 seeds (floor)", "vtn_64", "64", "60.0", "", "", ""]


def test_the_notes_say_what_a_reader_has_to_know(table):
    text = " ".join(notes(table))
    for fact in (
        "CDPruner, result tables",
        "by LLaVA's scripts as here",
        "cdpruner: its authors' own claim",
        "Averages and percentages are means over POPE, MME.",
        "MME is divided by 20",
        "lack a benchmark",
        "2 questions without an answer",
    ):
        assert fact in text
    assert "without a pruner (--pruner none)" in " ".join(notes(Table(LLAVA, ("pope",), table.rows[1:])))
    assert notes(Table(LLAVA, ("pope",), table.rows[:1])) == []


def markdown_rows(text):
    lines = [row.replace(r"\*", "*") for row in text.splitlines() if row.startswith("|") and set(row) - set("|-: ")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in lines]


def latex_rows(text):
    lines = [row.removesuffix(r" \\") for row in text.splitlines() if row.endswith(r"\\")]
    return [[re.sub(r"\\([_%])", r"\1", cell).strip() for cell in row.split(" & ")] for row in lines]


@pytest.mark.parametrize(("name", "rows_of"), [("markdown", markdown_rows), ("latex", latex_rows)])
def test_text_formats_hold_the_heading_and_every_line(table, name, rows_of):
    rows = rows_of(FORMATS[name]([table, table]))
    assert rows == 2 * [heading(table), *(line(table, row) for row in table.rows)]


def test_markdown_and_json_hold_what_was_profiled(table):
    stages = dict(zip(KEYS, (1.0, 2.0, 3.0, 4.0, 5.0, None), strict=True))
    profiled = replace(table.rows[0].cells["pope"], profile=Profile(9, stages, 20.0))
    rows = (replace(table.rows[0], cells={"pope": profiled, "mme": cell(1500.0)}), *table.rows[1:])
    text, plain = (FORMATS["markdown"]([replace(table, rows=each)]) for each in (rows, table.rows))
    assert markdown_rows(text)[-2:] == [
        TIME_HEADING, ["none", "full", "POPE", "1.0", "2.0", "3.0", "4.0", "5.0", "", "20.0", "50.0"]
    ]  # fmt: skip
    assert TIME_NOTE in text and text.startswith(plain.removesuffix("\n")) and TIME_NOTE not in plain
    (record,) = json.loads(FORMATS["json"]([replace(table, rows=rows)]))["tables"]
    numbers = record["rows"][0]["numbers"]
    unrecorded = {"noisy": False, "kv_mb": None, "peak_mb": None}
    assert numbers["pope"]["profile"] == {"count": 9, "stages": stages, "latency_ms": 20.0} | unrecorded
    assert numbers["mme"]["profile"] is None


def profiled(row, latency_ms, **more):
    stages = dict(zip(KEYS, (1.0, 2.0, 3.0, 4.0, 5.0, None), strict=True))
    return replace(row, cells={"pope": replace(row.cells["pope"], profile=Profile(9, stages, latency_ms, **more))})


def test_times_say_how_much_faster_pruning_is_and_which_are_noisy(table):
    none, pruned, floor = table.rows
    rows = (profiled(none, 30.0), profiled(pruned, 20.0, noisy=True), floor)
    grid = times(replace(table, rows=rows))
    assert grid.heading[-2:] == ["times faster", "noisy"] and len(grid.rows) == 2
    assert [row[-2:] for row in grid.rows] == [["1.00", "no"], ["1.50", "yes"]]
    assert "1.3 times the shortest" in " ".join(grid.notes)
    quiet = times(replace(table, rows=(profiled(none, 30.0), profiled(pruned, 20.0), floor)))
    assert quiet.heading[-1] == "times faster" and "shortest" not in " ".join(quiet.notes)
    assert times(replace(table, rows=(none, profiled(pruned, 20.0)))).heading == TIME_HEADING
    assert times(table) is None


def test_memory_is_told_where_it_was_recorded(table):
    assert memory(table) is None and memory(replace(table, rows=(profiled(table.rows[0], 30.0),))) is None
    grid = memory(replace(table, rows=(profiled(table.rows[0], 30.0, kv_mb=288.0, peak_mb=15000.4),)))
    assert grid.rows == [["none", "full", "POPE", "288.00", "15000"]] and "MiB" in grid.notes[0]
    assert memory(replace(table, rows=(profiled(table.rows[0], 30.0, kv_mb=288.0),))) is None


def test_scores_of_a_benchmark_have_interval_share_and_paired_test_in_columns_of_their_own(table):
    none, pruned, floor = table.rows
    compared = replace(pruned, cells={"pope": replace(pruned.cells["pope"], paired=Paired(9, 1), count=40)})
    grid = scores(replace(table, rows=(none, compared, floor)), "pope")
    shown = dict(zip(grid.heading, grid.rows[1], strict=True))
    assert shown["score"] == "87.0" and shown["95 % interval"] == "86.0 to 88.0" and shown["published"] == "87.5"
    assert shown["% of unpruned"] == "96.7" and shown["questions"] == "40" and shown["unanswered"] == "2"
    assert (shown["right only unpruned"], shown["right only pruned"], shown["p"]) == ("9", "1", "0.021")
    assert grid.floors == {2} and "average" not in grid.heading and "McNemar" in grid.notes[0]
    assert "p" not in scores(table, "pope").heading and not scores(table, "pope").notes


def test_latex_escapes_what_it_would_read_otherwise(table):
    text = FORMATS["latex"]([table])
    assert r"vtn\_64" in text and r"\% of unpruned" in text and text.count(r"\begin{tabular}{llrrrrr}") == 1


def test_csv_holds_numbers_in_full_and_every_table_below_one_header(table):
    other = Table(Group("llava-v1.5-13b", "native", ""), ("gqa",), (Row("none", "full", {"gqa": cell(63.0)}, None),))
    rows = list(csv.DictReader(io.StringIO(FORMATS["csv"]([table, other]))))
    assert [row["checkpoint"] for row in rows] == ["llava-v1.5-7b"] * 3 + ["llava-v1.5-13b"]
    assert float(rows[1]["pope_difference"]) == pytest.approx(-0.5)
    assert rows[1]["mme_published"] == "1415.1" and rows[1]["source"].startswith("CDPruner")
    assert (rows[3]["gqa"], rows[3]["pope"], rows[0]["pope_published"], rows[2]["floor"]) == ("63.0", "", "", "True")


def test_json_holds_everything(table):
    (record,) = json.loads(FORMATS["json"]([table]))["tables"]
    assert (record["checkpoint"], record["layout"], record["columns"]) == ("llava-v1.5-7b", "native", ["pope", "mme"])
    random = record["rows"][2]["numbers"]
    assert random["pope"]["seeds"] == 3 and random["pope"]["paths"] == ["a.json"] and random["mme"]["value"] is None
    cdpruner = record["rows"][1]["numbers"]
    assert cdpruner["pope"]["ci95"] == [86, 88] and cdpruner["pope"]["unanswered"] == 2
    assert cdpruner["average"]["difference"] == pytest.approx((87 + 70) / 2 - (87.5 + 70.755) / 2)


def test_names_of_folders_cannot_break_markdown_or_latex():
    name = "a|b_c_ *d* <e> [f](g) `h` $i$ \\j ~k~ ^l\nm"
    assert literal(name) == r"a\|b_c\_ \*d\* \<e\> \[f\](g) \`h\` \$i\$ \\j \~k\~ ^l m"
    assert _escape(name) == (
        r"a|b\_c\_ *d* <e> [f](g) `h` \$i\$ \textbackslash{}j \textasciitilde{}k\textasciitilde{} \textasciicircum{}l m"
    )
