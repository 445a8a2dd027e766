import json

import pytest

from llava.command import run_program
from llava.eval.eval_science_qa import build_parser, eval_answers
from llava.eval.tasks.base import Given
from llava.eval.tasks.sqa import SQA, parse_letter
from llava.records import InputError

PROBLEMS = {
    "1": {"choices": ["a", "b"], "answer": 1, "image": "image.png"},
    "2": {"choices": ["a", "b", "c"], "answer": 0, "image": "image.png"},
    "3": {"choices": ["a", "b"], "answer": 0, "image": None},
    "4": {"choices": ["a", "b"], "answer": 1, "image": None},
    "5": {"choices": ["a", "b"], "answer": 0, "image": "image.png"},
    "9": {"choices": ["a", "b"], "answer": 0, "image": None},
}
PIDS = ["1", "2", "3", "4", "5"]


def score(given, problems, pids):
    return SQA.score(Given(given, annotations=(pids, problems)))


def answer(pid, text):
    image = "<image>\n" if PROBLEMS[pid]["image"] else ""
    return {"question_id": pid, "prompt": f"{image}Which one?\nA. a\nB. b", "text": text}


FULL = [answer("1", "B"), answer("2", "B. b"), answer("3", "The answer is A."), answer("4", "A"), answer("5", "A. a")]


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("E", "E"),
        ("B. the second", "B"),
        ("The answer is C.", "C"),
        ("I think The answer is C, yes", "C"),
        ("The answer is C. The answer is D.", "FAILED"),
        ("B.", "FAILED"),
        ("b", "FAILED"),
        ("F. none", "FAILED"),
        ("", "FAILED"),
        ("AB", "FAILED"),
    ],
)
def test_the_letter_is_found_as_upstream_finds_it(text, letter):
    assert parse_letter(text) == letter


def test_accuracy_is_over_the_answers_with_an_image():
    # right: 1, 3, 5; with an image: 1, 2, 5
    result = score(FULL, PROBLEMS, PIDS)
    assert (result.benchmark, result.metric, result.count, result.missing) == ("sqa", "IMG accuracy", 3, 0)
    assert result.value == pytest.approx(200 / 3)
    assert result.details == {"accuracy": 60.0, "correct": 3, "total": 5, "text_only_missing": 0}


def test_the_image_only_file_gives_the_same_value_and_no_overall_accuracy():
    result = score([FULL[0], FULL[1], FULL[4]], PROBLEMS, PIDS)
    assert result.value == score(FULL, PROBLEMS, PIDS).value
    assert (result.count, result.missing, result.details["text_only_missing"]) == (3, 0, 2)
    assert result.details["accuracy"] is None


def test_an_image_question_without_an_answer_is_left_out_and_counted_as_missing():
    result = score(FULL[:4], PROBLEMS, PIDS)
    assert (result.value, result.count, result.missing) == (50.0, 2, 1)


def test_a_letter_beyond_the_choices_is_wrong():
    problems = PROBLEMS | {"1": {"choices": ["a"], "answer": 1}}
    assert score(FULL, problems, PIDS).value == pytest.approx(100 / 3)


def test_answers_outside_the_split_are_refused():
    with pytest.raises(InputError, match="1 answers are to problems outside the split, such as '9'"):
        score([*FULL, answer("9", "A")], PROBLEMS, PIDS)


def test_answering_a_problem_twice_is_an_error():
    with pytest.raises(InputError, match="question '1' is answered twice"):
        score([*FULL, FULL[0]], PROBLEMS, PIDS)


def test_answers_without_any_image_have_no_score():
    with pytest.raises(InputError, match="no answer's prompt holds <image>"):
        score(FULL[2:4], PROBLEMS, PIDS)


@pytest.fixture
def command(put, tmp_path):
    put("pid_splits.json", {"test": PIDS, "val": ["9"]})
    put("problems.json", PROBLEMS)
    return ["--base-dir", str(tmp_path), "--result-file", put("answers.jsonl", FULL)]


def test_the_program_prints_upstreams_line_and_writes_upstreams_files(command, tmp_path, capsys):
    outputs = {name: tmp_path / f"{name}.json" for name in ("file", "result", "ours")}
    words = ["--output-file", outputs["file"], "--output-result", outputs["result"], "--output", outputs["ours"]]
    run_program(build_parser(), eval_answers, [*command, *map(str, words)])
    assert capsys.readouterr().out == "Total: 5, Correct: 3, Accuracy: 60.00%, IMG-Accuracy: 66.67%\n"
    written = {name: json.loads(path.read_text()) for name, path in outputs.items()}
    assert [entry["question_id"] for entry in written["file"]["incorrect"]] == ["2", "4"]
    assert written["file"]["correct"][0] == {
        "question_id": "1",
        "parsed_ans": "B",
        "ground_truth": "B",
        "question": "<image>\nWhich one?\nA. a\nB. b",
        "pred": "B",
        "is_multimodal": True,
    }
    assert (written["result"]["acc"], written["result"]["correct"], written["result"]["count"]) == (60.0, 3, 5)
    assert written["result"]["results"] == {"1": 1, "2": 1, "3": 0, "4": 0, "5": 0}
    assert written["result"]["outputs"]["2"] == "B. b"
    assert written["ours"]["value"] == pytest.approx(200 / 3)


def test_an_unknown_split_is_named_with_the_valid_ones(command):
    with pytest.raises(SystemExit, match=r"pid_splits\.json: no 'tset' in it; there are test, val"):
        run_program(build_parser(), eval_answers, [*command, "--split", "tset"])


def test_a_problem_that_is_not_described_is_an_error(command, put):
    put("problems.json", {pid: PROBLEMS[pid] for pid in PIDS[1:]})
    with pytest.raises(SystemExit, match=r"1 questions of the split are not in problems\.json, such as '1'"):
        run_program(build_parser(), eval_answers, command)
