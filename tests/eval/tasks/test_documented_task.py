"""The benchmark that EVAL.md adds is one."""

from pathlib import Path

import pytest

from llava.command import run_program
from llava.eval.__main__ import main
from llava.eval.ask.plan import plan_of
from llava.eval.doctor.data import diagnose
from llava.eval.doctor.findings import can_go_on
from llava.eval.results.parsers import score_parser
from llava.eval.results.score import score_answers
from llava.eval.tasks import TASKS
from llava.eval.tasks.base import Task

DOCUMENT = Path(__file__).parents[3] / "EVAL.md"
LINE = {"question_id": 1, "image": "a.jpg", "text": "Is it?", "prompt": "Is it?"}


@pytest.fixture
def task(monkeypatch) -> Task:
    """The task of the code in the document, and the line that registers it."""
    code = DOCUMENT.read_text(encoding="utf-8").split("## A benchmark of your own")[1].split("```")[1]
    names = {}
    exec(code.removeprefix("python"), names)
    monkeypatch.setitem(TASKS, "yesno", names["YESNO"])
    return names["YESNO"]


@pytest.fixture
def labels(put):
    return put("yesno/labels.jsonl", [{"question_id": n, "answer": "yes"} for n in (1, 2)])


def test_its_answers_are_scored_by_the_command_of_all(task, put, labels, capsys):
    answers = put("answers.jsonl", [LINE | {"text": "Yes "}, LINE | {"question_id": 2, "text": "no"}])
    run_program(score_parser(task), score_answers, ["--result-file", answers, "--annotation-file", labels])
    assert capsys.readouterr().out == "Accuracy: 50.00%\n"
    put("answers.jsonl", [LINE | {"text": "Yes"}])
    with pytest.raises(SystemExit, match="error: .*question"):
        main(["score", "yesno", "--result-file", answers, "--annotation-file", labels])


def test_the_doctor_looks_at_its_data(task, put, labels, tmp_path):
    put("yesno/yesno_test.jsonl", [LINE, LINE | {"question_id": 2}])
    assert not can_go_on(diagnose("yesno", tmp_path, any_size=True))
    (tmp_path / "yesno" / "images").mkdir()
    (tmp_path / "yesno" / "images" / "a.jpg").touch()
    assert can_go_on(diagnose("yesno", tmp_path, any_size=True))
    assert not can_go_on(diagnose("yesno", tmp_path))


def test_a_script_of_two_lines_comes_to_commands(task):
    plan = plan_of(["yesno", "v1_5", "64"], {})
    assert "./playground/data/eval/yesno/yesno_test.jsonl" in plan.asking[0]
    assert plan.answers.endswith("yesno/answers/yesno_test/llava-v1.5-7b/cdpruner/vtn_64.jsonl")
    assert plan.scoring[:2] == ["score", "yesno"]
