"""The check of types: which errors end it, and what it says of their number."""

import json
import subprocess
from types import SimpleNamespace

import pytest

STRICT = ("llava/pruners/base.py", "llava/pruners/base.py:3: no")
OTHER = ("llava/model/tiles.py", "llava/model/tiles.py:5: no")


def test_the_recorded_number_of_errors_passes(check_types):
    code, (said,) = check_types.judge([OTHER, OTHER], 2)
    assert code == 0 and "0 errors in llava/asking" in said and "2 elsewhere, 2 are recorded" in said


def test_an_error_in_a_strict_part_is_one(check_types):
    code, said = check_types.judge([STRICT, OTHER], 1)
    assert code == 1 and said[0] == STRICT[1]


def test_a_number_that_grew_is_an_error_and_lists_all(check_types):
    code, said = check_types.judge([OTHER, OTHER], 1)
    assert code == 1 and said[1:3] == [OTHER[1]] * 2 and said[-1].endswith("llava/model 2")


def test_a_number_that_fell_passes_and_says_how_to_lower_it(check_types):
    code, said = check_types.judge([OTHER], 3)
    assert code == 0 and said[-1].endswith("--lower writes 1")


@pytest.mark.parametrize("name, strict", [("llava/vllm/models.py", True), ("llava/vllm_of_mine.py", False)])
def test_a_part_is_a_folder(check_types, name, strict):
    assert check_types.is_strict(name) is strict


def test_lowering_writes_the_smaller_number_alone(check_types, monkeypatch, tmp_path):
    monkeypatch.setattr(check_types, "RECORD", tmp_path / "errors.txt")
    monkeypatch.setattr("sys.argv", ["check_types.py", "--lower"])
    monkeypatch.setattr(check_types, "errors", lambda: [OTHER])
    for before, after in (("3\n", "1\n"), ("0\n", "0\n")):
        check_types.RECORD.write_text(before)
        check_types.main()
        assert check_types.RECORD.read_text() == after


def test_errors_are_read_and_warnings_are_none(check_types, monkeypatch):
    place = {"range": {"start": {"line": 4}}, "file": str(check_types.ROOT / OTHER[0])}
    wrong = {"severity": "error", "message": "no\n  such", "rule": "reportCallIssue", **place}
    answer = json.dumps({"generalDiagnostics": [wrong, {**wrong, "severity": "warning"}]})
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=answer))
    assert check_types.errors() == [(OTHER[0], f"{OTHER[0]}:5: no such (reportCallIssue)")]


def test_a_number_is_recorded(check_types):
    assert check_types.recorded() >= 0
