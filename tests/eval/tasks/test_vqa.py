import json

import pytest

from llava.eval.__main__ import main
from llava.eval.m4c_evaluator import EvalAIAnswerProcessor
from llava.eval.tasks.base import Given
from llava.eval.tasks.soft_accuracy import accuracy
from llava.eval.tasks.vizwiz import matched
from llava.eval.tasks.vqav2 import VQAV2
from llava.records import InputError


def references(*answers):
    return [{"answer": answer, "answer_id": i, "answer_confidence": "yes"} for i, answer in enumerate(answers, 1)]


ANNOTATED = {
    "annotations": [
        {"question_id": 9, "answer_type": "yes/no", "answers": references(*["yes"] * 10)},
        {"question_id": 5, "answer_type": "number", "answers": references(*["2"] * 2, *["three"] * 8)},
    ]
}
VIZWIZ = [
    {"image": "v1.jpg", "question": "What is this? ", "answer_type": "other", "answers": references(*["can"] * 10)},
    {"image": "v2.jpg", "question": "Color?", "answer_type": "other", "answers": references("unanswerable", "red")},
]
SHORT = "\nAnswer the question using a single word or phrase."


@pytest.mark.parametrize(
    ("text", "answers", "worth"),
    [
        ("two", ["2"] * 2 + ["3"] * 8, 0.6),
        ("3", ["2"] * 2 + ["three"] * 8, 1.0),
        ("The dog.", ["dog"] * 9 + ["cat"], 1.0),
        ("1,000", ["1000"] * 5 + ["1"] * 5, 1.0),
        ("no\n", ["no"] * 10, 1.0),
        ("unanswerable", ["unanswerable"] + ["red"] * 9, 0.3),
    ],
)
def test_both_sides_are_normalised_where_annotators_differ(text, answers, worth):
    assert accuracy(text, answers) == pytest.approx(worth)


@pytest.mark.parametrize(
    ("text", "reference", "worth"),
    [
        ("Yes", "yes", 1),
        ("No.", "no", 1),
        ("A dog", "dog", 1),
        ("two", "2", 1),
        ("Two", "two", 0),
        ("yes", "Yes", 0),
        ("the dog's", "dog's", 0),
        ("half-full", "half-full", 0),
        ("half-full", "half full", 1),
        (" blue\t", "blue\n", 1),
    ],
)
def test_where_all_annotators_agree_the_converted_answer_has_to_be_their_very_words(text, reference, worth):
    assert accuracy(text, [reference] * 10) == worth


@pytest.mark.parametrize("text", ["Yes", "The dogs.", "isnt it", "Two 1,000s", "dog's", "half - half", "U.S.A.", "a"])
@pytest.mark.parametrize("others", [["yes"] * 10, ["it 's"] * 4 + ["2 1000s"] * 6, ["dog 's"] * 10, ["usa"] * 10])
def test_the_score_is_that_of_the_converted_answer(text, others):
    uploaded = EvalAIAnswerProcessor()(text)
    agreeing = sum(other == uploaded for other in others)  # these references are in the challenge's normal form
    expected = (agreeing * min(1, (agreeing - 1) / 3) + (10 - agreeing) * min(1, agreeing / 3)) / 10
    assert accuracy(text, others) == pytest.approx(expected)


def answers(*pairs):
    return [{"question_id": qid, "prompt": f"{question}{SHORT}", "text": text} for qid, question, text in pairs]


def score(given):
    return VQAV2.score(Given(given, annotations=[ANNOTATED["annotations"]]))


def match_vizwiz(given, annotations, questions=None):
    return matched(Given(given, questions, [annotations]))


GIVEN = answers((5, "How many?", "two"), (9, "Is it?", "yes"))


def test_vqav2_is_matched_by_id_and_broken_down_by_answer_type():
    result = score(GIVEN)
    assert (result.benchmark, result.metric, result.count) == ("vqav2", "soft accuracy", 2)
    assert result.value == pytest.approx(80)
    assert result.details["by_answer_type"]["number"] == {"value": pytest.approx(60), "count": 1}


def test_vqav2_answers_to_other_questions_are_refused():
    with pytest.raises(InputError, match="1 without an answer, such as '9'"):
        score(GIVEN[:1])
    with pytest.raises(InputError, match="question '5' is answered twice"):
        score([*GIVEN, GIVEN[0]])


VIZWIZ_GIVEN = answers((0, "What is this?", "can"), (1, "Color?", "red"))


def test_vizwiz_is_matched_by_position_with_the_question_checked():
    assert match_vizwiz(VIZWIZ_GIVEN, VIZWIZ) == VIZWIZ
    with pytest.raises(InputError, match="answer 1 is not to the annotated question 'What is this"):
        match_vizwiz(VIZWIZ_GIVEN[::-1], VIZWIZ)
    with pytest.raises(InputError, match="1 answers to 2 annotated questions"):
        match_vizwiz(VIZWIZ_GIVEN[:1], VIZWIZ)


def test_vizwiz_is_matched_by_image_with_the_question_file():
    questions = [{"question_id": 1, "image": "v2.jpg"}, {"question_id": 0, "image": "v1.jpg"}]
    assert match_vizwiz(VIZWIZ_GIVEN[::-1], VIZWIZ, questions) == VIZWIZ[::-1]
    with pytest.raises(InputError, match=r"such as 'v2\.jpg'"):
        match_vizwiz(VIZWIZ_GIVEN, VIZWIZ, [questions[0] | {"image": "x.jpg"}, questions[1]])
    with pytest.raises(InputError, match="question '1' is asked twice"):
        match_vizwiz(VIZWIZ_GIVEN, VIZWIZ, [*questions, questions[0]])
    with pytest.raises(InputError, match=r"the image 'v1\.jpg' stands there 2 times"):
        match_vizwiz(VIZWIZ_GIVEN, [VIZWIZ[0]] * 2, [questions[1], questions[1] | {"question_id": 1}])


def test_an_empty_answer_is_unparsable_and_a_skipped_image_missing():
    given = [GIVEN[0] | {"text": ""}, GIVEN[1] | {"text": "", "metadata": {"error": "truncated"}}]
    result = score(given)
    assert (result.value, result.missing, result.unparsable) == (0.0, 1, 1)


@pytest.mark.parametrize(
    ("annotation", "given", "value"),
    [(ANNOTATED, GIVEN, 80), (VIZWIZ, VIZWIZ_GIVEN, 100 * (1 + 1 / 6) / 2)],
    ids=["vqav2", "vizwiz"],
)
def test_the_program_prints_and_writes(put, tmp_path, capsys, request, annotation, given, value):
    words = ["--annotation-file", put("val.json", annotation), "--result-file", put("a.jsonl", given)]
    main(["score", request.node.callspec.id, *words, "--output", str(tmp_path / "r.json")])
    assert capsys.readouterr().out.startswith(f"Overall accuracy: {value:.2f}% (2 questions)\n")
    written = json.loads((tmp_path / "r.json").read_text())
    assert (written["benchmark"], written["value"]) == (request.node.callspec.id, pytest.approx(value))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"questions": []}, "no 'annotations' in it; there are questions"),
        ({"annotations": {}}, "expected a JSON array under 'annotations'"),
        ([{"image": "v1.jpg", "question": "?"}], "question 1: the key 'answers' is missing"),
        ([{"image": "v1.jpg", "question": "?", "answers": []}], "no reference answers, as in a test split"),
        ({"annotations": [{"question_id": 1, "answers": [{}]}]}, "question 1: the key 'answer' is missing"),
        (
            {"annotations": [{"question_id": 1, "answer_type": ["other"], "answers": [{"answer": ""}]}]},
            "question 1: the value of 'answer_type' is of the wrong type",
        ),
    ],
)
def test_an_annotation_file_of_another_form_is_an_error(put, content, complaint):
    words = ["--annotation-file", put("val.json", content), "--result-file", put("a.jsonl", GIVEN)]
    with pytest.raises(SystemExit, match=rf"val\.json.*{complaint}"):
        main(["score", "vizwiz" if isinstance(content, list) else "vqav2", *words])


def test_an_annotation_file_that_is_not_there_is_named(put, tmp_path):
    words = ["--annotation-file", str(tmp_path / "absent.json"), "--result-file", put("a.jsonl", GIVEN)]
    with pytest.raises(SystemExit, match=r"cannot read .*absent\.json"):
        main(["score", "vqav2", *words])
