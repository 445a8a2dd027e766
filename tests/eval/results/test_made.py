import json
import os

import pytest

from llava.eval.results.made import differing, made_with, summarized

RUN = {"device": "cuda:0", "dtype": "float16", "commit": None, "versions": {"torch": "2.13.0"}, "attention": "sdpa"}
HERE = {"cpu": "A CPU", "gpu": "A GPU", "threads": 8, "date": "2026-01-02T23:59:59+00:00"}


@pytest.fixture
def answers(tmp_path):
    """A file of answers of the last day of 2025, and what lies beside it."""
    path = tmp_path / "vtn_64.jsonl"
    path.write_text("{}\n")
    os.utime(path, (1767222000, 1767222000))
    return path


def note(answers, text):
    answers.with_name(f"{answers.name}.run").write_text(text)


def test_what_a_run_noted_is_told_with_the_hardware_that_answered(answers):
    note(answers, json.dumps({"settings": {}, "environment": HERE}))
    made = made_with(answers, {"run": RUN})
    assert (made["date"], made["hardware"], made["threads"]) == ("2026-01-02", "A GPU", "8")
    assert (made["precision"], made["attention"], made["torch"]) == ("float16", "sdpa", "2.13.0")
    assert "commit" not in made and "llava" not in made
    assert made_with(answers, {"run": RUN | {"device": "cpu"}})["hardware"] == "A CPU"


@pytest.mark.parametrize("noted", [None, "", "[1]", '{"environment": [1]}', '{"environment": {"threads": "many"}}'])
def test_of_a_run_that_noted_nothing_the_day_is_the_files(answers, noted):
    if noted is not None:
        note(answers, noted)
    made = made_with(answers, {})
    assert made == {"date": "2025-12-31"}
    assert made_with(answers.with_name("gone.jsonl"), {}) == {}


def test_results_that_differ_say_in_what_and_how_many():
    made = [
        {"date": "2026-01-02", "hardware": "A GPU"},
        {"date": "2026-01-03", "hardware": "A GPU"},
        {"date": "2026-01-03"},
    ]
    assert summarized(made) == [
        ["date", "2026-01-02 (1 of 3 results); 2026-01-03 (2 of 3 results)"],
        ["hardware", "A GPU (2 of 3 results); not noted (1 of 3 results)"],
    ]
    assert summarized(made[:1]) == [["date", "2026-01-02"], ["hardware", "A GPU"]]
    assert differing(made[:2]) == [] and differing(made) == ["hardware"] and differing([]) == []
