import logging
import sys

import pandas
import pytest
from openpyxl import load_workbook

from llava.eval.tasks.tables import read_tsv, write_xlsx
from llava.records import InputError


def test_options_that_read_like_missing_values_stay_and_empty_cells_are_missing(put):
    table = read_tsv(put("t.tsv", "index\tA\tB\tC\tD\n1\tNone\tNA\tnull\t\n2\tnan\t007\tN/A\tx\n"), ["A"])
    assert table.iloc[0, :4].tolist() == ["1", "None", "NA", "null"] and table.iloc[0].isna().tolist()[4]
    assert table.iloc[1].tolist() == ["2", "nan", "007", "N/A", "x"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("index\tA\n1\tx\n", "no column B, answer; its columns are index, A"),
        ("A\tB\tanswer\n", "no rows"),
        ("", "not a tab-separated table"),
        ("A\tB\tanswer\n1\t2\t3\n1\t2\t3\t4\t5\t6\n", "not a tab-separated table"),
        ("A\tB\tanswer\n1\t2\t3\t\n1\t2\t3\t\n", "not a tab-separated table .rows have more cells than the header"),
        ('A\tB\tanswer\n1\t"2\t3\n', "not a tab-separated table"),
        ("A\tB\tanswer\tB\n1\t2\t3\t4\n", "more than one column B"),
    ],
)
def test_a_table_of_another_form_is_named(put, content, complaint):
    with pytest.raises(InputError, match=rf"t\.tsv: {complaint}"):
        read_tsv(put("t.tsv", content), ["A", "B", "answer"])


def test_a_table_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*absent\.tsv: No such file"):
        read_tsv(tmp_path / "absent.tsv", ["A"])


def test_a_table_as_windows_saves_it_is_read_alike(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_bytes("\ufeffindex\tA\r\n1\tcafé\r\n\r\n".encode())
    assert read_tsv(path, ["index", "A"]).values.tolist() == [["1", "café"]]


@pytest.mark.parametrize(("coding", "line"), [("latin-1", 3), ("utf-16", 1)])
def test_a_table_in_another_coding_is_told_with_its_line(tmp_path, coding, line):
    path = tmp_path / "t.tsv"
    path.write_bytes("index\tA\n0\ttea\n1\tcafé\n".encode(coding))
    with pytest.raises(InputError, match=rf"t\.tsv, line {line}: .*save it as UTF-8"):
        read_tsv(path, ["A"])


SAID = [
    "=B",
    "+C",
    "-5",
    "@SUM(A1)",
    "#N/A",
    "#REF!",
    "TRUE",
    "12",
    "1e5",
    "2020-01-01",
    " B ",
    "a\nb\t",
    "\u2028",
    "\x7f",
]


def test_every_text_of_a_sheet_is_text_and_reads_back_as_it_was(tmp_path, caplog):
    write_xlsx(tmp_path / "new" / "t.xlsx", ["=index", "text"], [(n, text) for n, text in enumerate(SAID)])
    cells = list(load_workbook(tmp_path / "new" / "t.xlsx").active.rows)
    assert [(a.value, b.value, b.data_type) for a, b in cells[1:]] == [(n, text, "s") for n, text in enumerate(SAID)]
    assert (cells[0][0].value, cells[0][0].data_type) == ("=index", "s")
    table = pandas.read_excel(tmp_path / "new" / "t.xlsx", keep_default_na=False)
    assert table["text"].tolist() == SAID and table["=index"].tolist() == list(range(len(SAID)))
    assert not caplog.records


@pytest.mark.parametrize(
    ("text", "written", "told"),
    [
        ("B\x07", "B", "characters that .xlsx cannot hold"),
        ("it is\x0bB\x1f", "it is B ", "characters that .xlsx cannot hold"),
        ("B\ud83d", "B\ufffd", "characters that .xlsx cannot hold"),
        ("B\uffff", "B", "characters that .xlsx cannot hold"),
        ("a\r\nb\rc", "a\nb\nc", "carriage returns become newlines"),
        ("x" * 40_000, "x" * 32_767, "texts are cut at the 32767 characters"),
    ],
)
def test_what_a_sheet_cannot_hold_is_told(tmp_path, caplog, text, written, told):
    with caplog.at_level(logging.WARNING):
        write_xlsx(tmp_path / "t.xlsx", ["text"], [("fine",), (text,), (text,)])
    assert load_workbook(tmp_path / "t.xlsx").active["A3"].value == written
    assert f"t.xlsx: {told}" in caplog.text and "in 2 cells, the first of them row 3, column text" in caplog.text


def test_a_broken_pandas_is_told_like_a_missing_one(monkeypatch, put):
    class Broken:
        def find_spec(self, name, *_):
            if name == "pandas":
                raise ValueError("numpy.dtype size changed")

    monkeypatch.delitem(sys.modules, "pandas")
    monkeypatch.setattr(sys, "meta_path", [Broken()])
    with pytest.raises(InputError, match=r"needs pandas \(numpy.dtype size changed\): pip install"):
        read_tsv("t.tsv", ["A"])


def test_without_pandas_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match=r"needs pandas.*: pip install '\.\[eval\]'"):
        read_tsv("t.tsv", ["A"])
