import json

import pytest

from llava.eval.__main__ import main
from llava.eval.tasks.base import Given
from llava.eval.tasks.gqa import GQA, distribution, prediction, steps
from llava.records import InputError


def question(answer, structural="query", semantic="rel", text="Is it red?", group=None, balanced=True, operations=()):
    return {
        "answer": answer,
        "isBalanced": balanced,
        "question": text,
        "types": {"structural": structural, "semantic": semantic},
        "groups": {"global": group},
        "semantic": [{"operation": name, "argument": argument} for name, argument in operations],
    }


QUESTIONS = {
    "05": question("yes", "verify", "attr", "Is the cat red?", operations=[("select", "cat"), ("verify color", "red")]),
    "11": question("no", "logical", "obj", "Is it red?", operations=[("select", "it"), ("exist", "?")]),
    "12": question("red", "query", "attr", "What color is it?", operations=[("query", "name")]),
    "13": question("left", "choose", "rel", "Is it left or right?"),
    "14": question("dog", balanced=False),
}


def score(given, questions):
    return GQA.score(Given(given, annotations=[questions]))


def answers(*texts, ids=("05", "11", "12", "13")):
    return [{"question_id": qid, "text": text} for qid, text in zip(ids, texts, strict=True)]


@pytest.mark.parametrize(("text", "expected"), [("Yes.", "yes"), ("Red..", "red"), ("a b", "a b"), ("yes ", "yes ")])
def test_predictions_lose_case_and_closing_periods_only(text, expected):
    assert prediction(text) == expected


def test_accuracy_counts_exact_answers_to_balanced_questions():
    result = score(answers("Yes.", "yes", "Red", "right"), QUESTIONS)
    assert (result.benchmark, result.metric, result.value, result.count) == ("gqa", "accuracy", 50.0, 4)
    assert (result.details["binary"], result.details["open"]) == (pytest.approx(100 / 3), 100.0)


def test_accuracy_is_broken_down_by_type_length_and_steps():
    details = score(answers("yes", "yes", "red", "right"), QUESTIONS).details
    assert details["by_structural_type"]["verify"] == {"value": 100.0, "count": 1}
    assert details["by_semantic_type"]["attr"] == {"value": 100.0, "count": 2}
    assert details["by_words"] == {
        "3": {"value": 0.0, "count": 1},
        "4": {"value": 100.0, "count": 2},
        "5": {"value": 0.0, "count": 1},
    }
    assert details["by_steps"]["2"] == {"value": 100.0, "count": 1}


def test_steps_that_find_or_name_an_object_do_not_count():
    assert [steps(QUESTIONS[qid]) for qid in ("05", "11", "12")] == [2, 1, 0]


def test_order_and_answers_to_unbalanced_questions_do_not_matter():
    given = [*answers("yes", "no", "red", "left")[::-1], {"question_id": "14", "text": "cat"}]
    assert score(given, QUESTIONS).value == 100.0


def test_the_answer_and_the_balance_of_questions_suffice():
    bare = {qid: {"answer": q["answer"], "isBalanced": q["isBalanced"]} for qid, q in QUESTIONS.items()}
    result = score(answers("yes", "no", "red", "right"), bare)
    assert (result.value, result.details) == (75.0, {})


def test_the_distribution_is_a_weighted_chi_square():
    # group color: gold 2 red, 2 blue; predicted 3 red, 1 green: (1 / 2 + 4 / 2) = 2.5 over 4 questions;
    # group place: gold and predicted 1 left: 0 over 1 question; together 2.5 * 4 / 5 / 100
    gold = [("red", "color"), ("red", "color"), ("blue", "color"), ("blue", "color"), ("left", "place"), ("no", None)]
    questions = [question(answer, group=group) for answer, group in gold]
    assert distribution(questions, ["red", "red", "red", "green", "left", "yes"]) == pytest.approx(0.02)
    assert distribution(questions, [answer for answer, _ in gold]) == 0


def test_every_balanced_question_must_be_answered():
    with pytest.raises(InputError, match="3 answers to 4 annotated questions; 1 without an answer, such as '13'"):
        score(answers("yes", "no", "red", ids=("05", "11", "12")), QUESTIONS)


def test_answers_to_other_questions_are_refused():
    with pytest.raises(InputError, match="1 answered but not annotated.*'99'"):
        score([*answers("yes", "no", "red", "left"), {"question_id": "99", "text": "a"}], QUESTIONS)


@pytest.fixture
def command(put):
    given = answers("yes", "no", "red", "")
    return [
        *("--annotation-file", put("testdev_balanced_questions.json", QUESTIONS)),
        *("--result-file", put("answers.jsonl", given)),
    ]


def test_the_program_prints_and_writes(command, tmp_path, capsys):
    main(["score", "gqa", *command, "--output", str(tmp_path / "gqa.json")])
    printed = capsys.readouterr().out
    assert printed.startswith("Binary: 66.67%\nOpen: 100.00%\nAccuracy: 75.00%\nDistribution: 0.00 (lower is better)\n")
    assert "choose: 0.00% (1 questions)" in printed
    written = json.loads((tmp_path / "gqa.json").read_text())
    assert (written["value"], written["missing"], written["unparsable"]) == (75.0, 0, 1)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"1": {"answer": "yes"}}, "question '1': the key 'isBalanced' is missing"),
        ({"1": {"answer": "yes", "isBalanced": False}}, "no balanced question"),
        ([], "expected a JSON object"),
    ],
)
def test_an_annotation_file_of_another_kind_is_an_error(command, put, content, complaint):
    put("testdev_balanced_questions.json", content)
    with pytest.raises(SystemExit, match=complaint):
        main(["score", "gqa", *command])
