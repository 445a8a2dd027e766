"""``llava doctor``: three parts, and how each ends."""

import pytest

from llava.cli import main
from llava.eval.doctor import environment
from llava.eval.doctor.findings import Finding


def ended(words, capsys):
    try:
        main(["doctor", *words])
    except SystemExit as end:
        return end.code, capsys.readouterr().out
    return 0, capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["env"]])
@pytest.mark.parametrize(
    ("status", "code", "last"), [("ok", 0, "nothing wrong among 2"), ("wrong", 1, "1 of 2 are wrong")]
)
def test_the_environment_is_looked_at_unless_something_else_is_named(words, status, code, last, monkeypatch, capsys):
    findings = [Finding(status, "torch", "2.6"), Finding("ok", "numpy", "2")]
    monkeypatch.setattr(environment, "diagnose_environment", lambda folder: findings)
    ending, output = ended(words, capsys)
    assert ending == code and output.splitlines()[0] == "environment:" and output.splitlines()[-1] == last


def test_data_is_judged_as_by_the_program_of_the_evaluation(tmp_path, capsys):
    code, output = ended(["data", "pope", "--eval-dir", str(tmp_path)], capsys)
    assert code == 1 and output.startswith("pope: not ready\n  missing ")
    assert output.splitlines()[-1].startswith("0 of 1 benchmark complete; to download: 6 GB")


def test_a_checkpoint_is_the_embedded_one_unless_it_is_named(tmp_path, capsys):
    code, output = ended(["checkpoint"], capsys)
    assert code == 0 and "llava-shapes" in output and output.splitlines()[-1] == "nothing wrong among 4"
    code, output = ended(["checkpoint", str(tmp_path / "gone")], capsys)
    assert code == 1 and output.splitlines()[-1] == "1 of 1 are wrong"
