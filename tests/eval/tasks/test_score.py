"""The commands that score answers and write what a server takes, and what a benchmark of one's own costs."""

import json

import pytest

from llava.command import run_program
from llava.eval.__main__ import main
from llava.eval.results.parsers import score_parser
from llava.eval.results.score import score_answers
from llava.eval.tasks import TASKS
from llava.eval.tasks.base import SHORT, Given, Task
from llava.eval.tasks.files import DataFile, Images, asked
from llava.eval.tasks.matching import by_question, check_same_questions
from llava.eval.tasks.pope import ROWS
from llava.eval.tasks.scores import Result

QUESTION = {"question_id": 1, "image": "a.jpg", "text": "Is it?\nAnswer the question using a single word or phrase."}
ANSWER = {"question_id": 1, "prompt": QUESTION["text"], "text": "Yes"}


@pytest.fixture
def answers(put):
    return put("answers.jsonl", [ANSWER])


def test_pope_is_scored_with_the_files_of_its_categories(put, answers, tmp_path, capsys):
    label = {"image": "a.jpg", "text": "Is it?", "label": "yes"}
    other = {"image": "b.jpg", "text": "Is it?", "label": "no"}
    labels = [put(f"{name}.jsonl", [label if name == "popular" else other]) for name in ROWS]
    words = ["--question-file", put("q.jsonl", [QUESTION | {"category": "popular"}]), "--result-file", answers]
    main(["score", "pope", *words, "--annotation-file", *labels, "--output", str(tmp_path / "r.json")])
    assert capsys.readouterr().out.endswith("Average F1 score: 1.0\n")
    assert json.loads((tmp_path / "r.json").read_text())["value"] == 100.0


def test_scienceqa_is_scored_with_its_two_files(put, capsys):
    given = put("a.jsonl", [ANSWER | {"prompt": "<image>\nWhich?", "text": "A"}])
    files = [put("splits.json", {"test": ["1"]}), put("problems.json", {"1": {"choices": ["a", "b"], "answer": 0}})]
    main(["score", "sqa", "--annotation-file", *files, "--result-file", given])
    assert "IMG-Accuracy: 100.00%" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("task", "flags"),
    [("pope", "--question-file, --annotation-file"), ("mme", "--data-dir"), ("gqa", "--annotation-file")],
)
def test_what_scoring_needs_is_asked_for_by_its_flag(answers, capsys, task, flags):
    with pytest.raises(SystemExit):
        main(["score", task, "--result-file", answers])
    assert f"required: {flags}" in capsys.readouterr().err


def test_answers_are_written_as_the_server_takes_them(put, answers, tmp_path):
    words = ["--result-file", answers, "--output", str(tmp_path / "new" / "upload.json")]
    main(["submit", "vizwiz", "--question-file", put("q.jsonl", [QUESTION]), *words])
    assert json.loads((tmp_path / "new" / "upload.json").read_text()) == [{"image": "a.jpg", "answer": "yes"}]
    main(["submit", "mmvet", *words])
    assert json.loads((tmp_path / "new" / "upload.json").read_text()) == {"v1_1": "Yes"}


def test_answers_to_other_questions_are_not_written_and_the_files_named(put, answers, tmp_path):
    words = ["--question-file", put("q.jsonl", [QUESTION | {"question_id": 2}]), "--result-file", answers]
    with pytest.raises(SystemExit, match=r"such as '2'.*--result-file .*answers\.jsonl, --question-file .*q\.jsonl"):
        main(["submit", "vizwiz", *words, "--output", str(tmp_path / "u.json")])
    assert not (tmp_path / "u.json").exists()


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_what_a_task_says_of_itself_fits_together(task):
    needed = {*task.score_reads, *task.score_takes, *task.submit_reads}
    assert needed <= {"questions", "annotations", "images"}
    assert ("questions" in needed) == (task.questions is not None)
    assert "annotations" not in needed or task.truth
    assert bool(task.submit_reads) <= bool(task.submit) and bool(task.judged) == bool(task.verdicts)
    assert task.server or all(map(task.scored, task.splits))


def test_a_benchmark_of_ones_own_is_a_score_a_report_and_a_task(put, capsys):
    def score(given: Given) -> Result:
        answered, (labels,) = by_question(given.answers), given.annotations
        check_same_questions(answered, labels)
        right = [answered[qid]["text"] == label["answer"] for qid, label in labels.items()]
        return Result.of_scores("mine", "accuracy", right, given.answers, 0)

    mine = Task(
        name="mine",
        title="Mine",
        folder="mine",
        asks=SHORT,
        splits=asked("mine_test", None),
        images=Images("images", "nowhere"),
        annotations=(DataFile("labels.json", "nowhere", None, {"answer": str}, kind=dict),),
        score=score,
        report=lambda result: f"{result.value:.1f}",
    )
    labels = put("labels.json", {"1": {"answer": "Yes"}})
    words = ["--annotation-file", labels, "--result-file", put("a.jsonl", [ANSWER])]
    run_program(score_parser(mine), score_answers, words)
    assert capsys.readouterr().out == "100.0\n"
    put("labels.json", {"1": {}})
    with pytest.raises(SystemExit, match="question '1': the key 'answer' is missing"):
        run_program(score_parser(mine), score_answers, words)


@pytest.mark.parametrize("wrong", [{"run": {"model_path": 5}}, {"options": {"seed": "abc"}}, {"pruner": 3}])
def test_answers_that_another_program_wrote_are_scored_and_state_nothing(put, tmp_path, wrong):
    metadata = {"pruner": "divprune", "options": {"visual_token_num": 9}, "run": {}} | wrong
    given = put("a.jsonl", [ANSWER | {"prompt": "<image>\nWhich?", "text": "A", "metadata": metadata}])
    files = [put("splits.json", {"test": ["1"]}), put("problems.json", {"1": {"choices": ["a", "b"], "answer": 0}})]
    output = tmp_path / "result.json"
    main(["score", "sqa", "--annotation-file", *files, "--result-file", given, "--output", str(output)])
    assert "setting" not in json.loads(output.read_text())
