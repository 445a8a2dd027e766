import json

import pytest

from llava.eval.__main__ import main
from llava.eval.tasks.base import Given
from llava.eval.tasks.shapes import SHAPES, normalize, report
from llava.records import InputError

LABELS = [
    {"question_id": 0, "answer": "red", "category": "color"},
    {"question_id": 1, "answer": "blue", "category": "color"},
    {"question_id": 2, "answer": "3", "category": "count"},
    {"question_id": 2, "answer": "4", "category": "count"},
]


def score(given, labels):
    return SHAPES.score(Given(given, annotations=[labels]))


def answers(*texts, **metadata):
    counts = {"visual_tokens": 36, "latency_ms": 20.0} | metadata
    return [
        {"question_id": label["question_id"], "text": text, "metadata": counts}
        for label, text in zip(LABELS, texts, strict=False)
    ]


def test_counts_right_answers_by_type_and_in_all():
    result = score(answers("Red.", "green", "3", "4"), LABELS)
    assert (result.benchmark, result.metric, result.value, result.count) == ("shapes", "accuracy", 75.0, 4)
    by_type = result.details["by_type"]
    assert (by_type["color"]["value"], by_type["color"]["count"]) == (50.0, 2)
    assert (by_type["count"]["value"], by_type["count"]["count"]) == (100.0, 2)
    assert by_type["color"]["ci95"] == pytest.approx([9.45, 90.55], abs=0.01)
    assert result.ci95[0] <= 75.0 <= result.ci95[1]


def test_joins_by_position_because_ids_repeat():
    assert score(answers("red", "blue", "4", "3"), LABELS).value == 50.0


def test_an_id_written_as_text_is_the_same_id():
    given = [answer | {"question_id": str(answer["question_id"])} for answer in answers("red", "blue", "3", "4")]
    assert score(given, LABELS).value == 100.0


def test_reports_tokens_and_speed_as_recorded():
    result = score(answers("red", "blue", "3", "4"), LABELS)
    assert (result.details["visual_tokens"], result.details["images_per_second"]) == (36, 50.0)


def test_a_skipped_image_is_missing_and_an_empty_answer_unparsable_and_both_are_wrong():
    given = answers("red", "", " .", "4")
    given[1]["metadata"] = {"error": "no such file"}
    result = score(given, LABELS)
    assert (result.missing, result.unparsable, result.value) == (1, 1, 50.0)
    assert result.details["visual_tokens"] == 36


@pytest.mark.parametrize("text", ["red", " Red ", "RED.", "red. "])
def test_case_space_and_closing_period_do_not_matter(text):
    assert normalize(text) == "red"


def test_a_longer_answer_is_not_the_answer():
    assert normalize("red square") != normalize("red")


def test_another_number_of_answers_is_an_error():
    with pytest.raises(InputError, match="3 answers to 4 labels"):
        score(answers("red", "blue", "3"), LABELS)


def test_answers_to_other_questions_are_an_error():
    with pytest.raises(InputError, match="answer 1 is to question 1, its label is for 0"):
        score(answers("red", "blue", "3", "4")[1::-1] + answers("red", "blue", "3", "4")[2:], LABELS)


def test_the_report_has_a_line_per_type_and_the_total():
    lines = report(score(answers("red", "green", "3", "4"), LABELS)).splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["color", "count", "all"]
    assert lines[1].split()[1:3] == ["2", "50.00%"] and lines[3].split()[1:3] == ["4", "75.00%"]
    assert lines[-2:] == ["visual tokens kept: 36.0", "images per second: 50.0"]


@pytest.fixture
def files(tmp_path):
    paths = {"annotation": tmp_path / "labels.jsonl", "result": tmp_path / "answers.jsonl"}
    for name, records in {"annotation": LABELS, "result": answers("red", "blue", "3", "5")}.items():
        paths[name].write_text("".join(json.dumps(record) + "\n" for record in records))
    return paths


def test_the_program_prints_the_table_and_writes_the_result(files, tmp_path, capsys):
    output = tmp_path / "out" / "shapes.json"
    words = ["--annotation-file", files["annotation"], "--result-file", files["result"], "--output", output]
    main(["score", "shapes", *[str(word) for word in words]])
    assert "75.00%" in capsys.readouterr().out
    assert json.loads(output.read_text())["value"] == 75.0


def test_missing_labels_end_the_program_with_their_path(files, tmp_path):
    words = ["--annotation-file", str(tmp_path / "absent.jsonl"), "--result-file", str(files["result"])]
    with pytest.raises(SystemExit, match=r"score shapes: error: cannot read .*absent\.jsonl"):
        main(["score", "shapes", *words])
