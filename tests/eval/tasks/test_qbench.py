import json

import pytest

from llava.eval.__main__ import main
from llava.eval.tasks.base import Given
from llava.eval.tasks.qbench import QBENCH
from llava.records import InputError


def question(image, text, candidates, correct, kind):
    return {"img_path": image, "question": text, "candidates": candidates, "correct_ans": correct, "type": kind}


QUESTIONS = [
    question("1.jpg", "Is it sharp?", ["No", "Yes"], "Yes", 0),
    question("1.jpg", "How bright is it?", ["Bright", "Very bright", "Dark"], "Very bright", 2),
    question("2.jpg", "Is it sharp?", ["Yes", "No"], "Yes", 0),
]


def score(given, annotations):
    return QBENCH.score(Given(given, annotations=[annotations]))


def answers(*responses):
    return [q | {"response": response} for q, response in zip(QUESTIONS, responses, strict=False)]


def test_letters_and_option_texts_are_read():
    result = score(answers("B. Yes", "Very bright", "B"), QUESTIONS)
    assert (result.benchmark, result.value, result.count) == ("qbench", pytest.approx(200 / 3), 3)
    assert result.details == {
        "by_type": {"0": {"value": 50.0, "count": 2}, "2": {"value": 100.0, "count": 1}},
    }


def test_an_answer_that_names_no_candidate_is_unparsable_and_wrong():
    result = score(answers("B", "E", "blurry"), QUESTIONS)
    assert (result.unparsable, result.value) == (2, pytest.approx(100 / 3))


def test_order_does_not_matter_but_image_and_question_do():
    assert score(answers("B", "B", "A")[::-1], QUESTIONS).value == 100.0
    with pytest.raises(InputError, match=r"1 answered but not annotated.*\('3\.jpg', 'Is it sharp\?'\)"):
        score([*answers("B", "B"), QUESTIONS[2] | {"img_path": "3.jpg", "response": "A"}], QUESTIONS)


@pytest.fixture
def command(put):
    return [
        *("--annotation-file", put("llvisionqa_dev.json", QUESTIONS)),
        *("--result-file", put("answers.jsonl", answers("B", "B", "A"))),
    ]


def test_the_program_prints_and_writes(command, tmp_path, capsys):
    main(["score", "qbench_zh", *command, "--output", str(tmp_path / "q.json")])
    assert capsys.readouterr().out.startswith("Accuracy: 100.00% (3 questions)\n")
    assert json.loads((tmp_path / "q.json").read_text())["benchmark"] == "qbench_zh"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ([{"img_path": "1.jpg", "question": "?", "candidates": ["a"]}], "question 1: the key 'correct_ans' is missing"),
        ([QUESTIONS[0] | {"correct_ans": "Maybe"}], "'Maybe' is none of"),
        ([], "no questions"),
    ],
)
def test_an_annotation_file_of_another_form_is_an_error(command, put, content, complaint):
    put("llvisionqa_dev.json", content)
    with pytest.raises(SystemExit, match=rf"llvisionqa_dev\.json.*{complaint}"):
        main(["score", "qbench_zh", *command])
