import json

import pytest

from llava.eval.__main__ import main
from llava.eval.tasks.base import Given
from llava.eval.tasks.seed import SEED
from llava.records import InputError


def question(question_id, question_type, data_type, answer):
    return {
        "question_id": question_id,
        "question_type_id": question_type,
        "data_type": data_type,
        "answer": answer,
    }


ANNOTATION = {
    "question_type": {"Scene Understanding": 1, "Instance Identity": 2, "Action Recognition": 10},
    "questions": [
        question("101669", 1, "image", "A"),
        question("0012", 1, "image", "B"),
        question("7", 2, "image", "C"),
        question("v3", 10, "video", "D"),
    ],
}


def score(given, annotation):
    return SEED.score(Given(given, annotations=[annotation]))


def answers(*texts, ids=(101669, 12, "7", "v3")):
    return [{"question_id": qid, "text": text} for qid, text in zip(ids, texts, strict=False)]


def test_the_exact_letter_is_right_and_ids_match_as_numbers():
    result = score(answers("A", "B.", "C", "D"), ANNOTATION)
    assert (result.benchmark, result.metric, result.value, result.count) == ("seed", "accuracy", 75.0, 4)
    assert result.unparsable == 1
    assert result.details["by_data_type"] == {
        "image": {"value": pytest.approx(200 / 3), "count": 3},
        "video": {"value": 100.0, "count": 1},
    }
    assert list(result.details["by_question_type"]) == [
        "Scene Understanding",
        "Instance Identity",
        "Action Recognition",
    ]
    assert result.details["by_question_type"]["Scene Understanding"]["value"] == 50.0


def test_a_type_without_a_right_answer_is_0_percent():
    result = score(answers("A", "B", "D", "D"), ANNOTATION)
    assert result.details["by_question_type"]["Instance Identity"] == {"value": 0.0, "count": 1}


def test_a_data_type_that_was_not_asked_is_left_out_and_listed():
    result = score(answers("A", "B", "D"), ANNOTATION)
    assert (result.metric, result.value, result.count) == ("image accuracy", pytest.approx(200 / 3), 3)
    assert result.details["left_out"] == ["video"]
    assert "Action Recognition" not in result.details["by_question_type"]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (answers("A", "B"), "1 without an answer, such as '7'"),
        (answers("A", "B", "C", "D", "A", ids=(101669, 12, 7, "v3", 99)), "1 answered but not annotated.*'99'"),
        (answers("A", "B", "C", "D", "A", ids=(101669, 12, 7, "v3", "12")), "question '12' is answered twice"),
        (answers("A", ids=("x",)), "1 answers to 0 annotated questions; .* such as 'x'"),
    ],
)
def test_answers_that_do_not_belong_to_the_questions_are_refused(given, complaint):
    with pytest.raises(InputError, match=complaint):
        score(given, ANNOTATION)


@pytest.fixture
def command(put):
    return [
        *("--annotation-file", put("SEED-Bench.json", ANNOTATION)),
        *("--result-file", put("answers.jsonl", answers("A", "A", "C"))),
    ]


def test_the_program_prints_upstreams_lines_and_writes(command, tmp_path, capsys, caplog):
    main(["score", "seed", *command, "--output", str(tmp_path / "seed.json")])
    assert capsys.readouterr().out.splitlines() == [
        "Scene Understanding: 50.00%",
        "Instance Identity: 100.00%",
        "Total accuracy: 66.67%",
        "image accuracy: 66.67%",
    ]
    assert "no answer to any question about a video" in caplog.text
    assert json.loads((tmp_path / "seed.json").read_text())["details"]["left_out"] == ["video"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"questions": []}, "the key 'question_type' is missing"),
        (ANNOTATION | {"question_type": {"Scene Understanding": 1}}, "question 3: no name for its type 2"),
        (ANNOTATION | {"questions": [{"question_id": "1"}]}, "question 1: the key 'question_type_id' is missing"),
    ],
)
def test_an_annotation_file_of_another_form_is_an_error(command, put, content, complaint):
    put("SEED-Bench.json", content)
    with pytest.raises(SystemExit, match=rf"SEED-Bench\.json.*{complaint}"):
        main(["score", "seed", *command])
