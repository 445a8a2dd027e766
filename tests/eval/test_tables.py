import sys

import pytest

from llava.eval.records import InputError
from llava.eval.tables import read_tsv


def test_options_that_read_like_missing_values_stay_and_empty_cells_are_missing(put):
    table = read_tsv(put("t.tsv", "index\tA\tB\tC\tD\n1\tNone\tNA\tnull\t\n2\tnan\t007\tN/A\tx\n"), ["A"])
    assert table.iloc[0, :4].tolist() == ["1", "None", "NA", "null"] and table.iloc[0].isna().tolist()[4]
    assert table.iloc[1].tolist() == ["2", "nan", "007", "N/A", "x"]


def test_columns_can_be_left_out(put):
    assert list(read_tsv(put("t.tsv", "index\timage\tA\n1\tabc\tx\n"), ["A"], without=["image"])) == ["index", "A"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("index\tA\n1\tx\n", "no column B, answer; its columns are index, A"),
        ("A\tB\tanswer\n", "no rows"),
        ("", "not a tab-separated table"),
        ("A\tB\tanswer\n1\t2\t3\n1\t2\t3\t4\t5\t6\n", "not a tab-separated table"),
    ],
)
def test_a_table_of_another_form_is_named(put, content, complaint):
    with pytest.raises(InputError, match=rf"t\.tsv: {complaint}"):
        read_tsv(put("t.tsv", content), ["A", "B", "answer"])


def test_a_table_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*absent\.tsv: No such file"):
        read_tsv(tmp_path / "absent.tsv", ["A"])


def test_without_pandas_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match=r"needs pandas: pip install 'llava\[eval\]'"):
        read_tsv("t.tsv", ["A"])
