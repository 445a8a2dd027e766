"""ScienceQA's questions with an image, selected from all of them."""

import json
import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/eval/select_image_questions.py"


@pytest.fixture
def select(tmp_path, monkeypatch):
    def run(content):
        source, destination = tmp_path / "CQM-A.json", tmp_path / "new" / "CQM-I.json"
        source.write_text(content if isinstance(content, str) else json.dumps(content))
        monkeypatch.setattr(sys, "argv", [SCRIPT.name, "--src", str(source), "--dst", str(destination)])
        runpy.run_path(str(SCRIPT), run_name="__main__")
        return json.loads(destination.read_text())

    return run


def test_keeps_the_questions_with_an_image_whole_and_in_their_order(select):
    turns = [{"from": "human", "value": "<image>\nWhich?\nA. α"}, {"from": "gpt", "value": "A"}]
    questions = [
        {"id": "9", "image": "9/image.png", "conversations": turns},
        {"id": "3", "conversations": turns},
        {"id": "4", "image": "4/image.png", "conversations": turns},
    ]
    assert select(questions) == [questions[0], questions[2]]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('[{"id": "3"}]', "none of its 1 questions has an image"),
        ("{}", "expected a JSON array"),
        ("[", "not valid JSON"),
    ],
)
def test_a_file_without_any_is_refused_by_name(select, content, complaint):
    with pytest.raises(SystemExit, match=rf"CQM-A\.json.*{complaint}"):
        select(content)
