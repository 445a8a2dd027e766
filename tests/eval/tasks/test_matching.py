import json

import pytest

from llava.eval.tasks.files import answer_lines
from llava.eval.tasks.matching import by_question, check_same_questions, is_missing, naming_files
from llava.eval.tasks.scores import Result, percent_by, percent_interval, publish
from llava.records import InputError, read_json


def test_the_same_questions_in_any_order_pass():
    assert check_same_questions(["b", "a", "a"], ["a", "b", "a"]) is None


def test_questions_on_one_side_only_are_counted_and_one_of_each_is_named():
    with pytest.raises(InputError) as error:
        check_same_questions(["a", "a", "x"], ["a", "b", "c"])
    assert "3 answers to 3 annotated questions" in str(error.value)
    assert "2 without an answer, such as 'b'" in str(error.value)
    assert "2 answered but not annotated, or answered too often, such as 'a'" in str(error.value)


def test_answering_a_question_twice_is_an_error():
    with pytest.raises(InputError, match="question '7' is answered twice"):
        by_question([{"question_id": 7}, {"question_id": 8}, {"question_id": 7}])


def test_a_record_of_an_unreadable_image_is_missing_and_one_without_metadata_is_not():
    records = [{"metadata": {"error": "truncated"}}, {"metadata": {}}, {"metadata": None}, {}]
    assert [is_missing(record) for record in records] == [True, False, False, False]


def test_answers_keep_tabs_and_newlines(put):
    path = put("a.jsonl", [{"question_id": "x", "text": "one\ttwo\nthree", "prompt": "?"}])
    assert answer_lines(prompt=str).read(path)[0]["text"] == "one\ttwo\nthree"


def test_answers_without_a_needed_key_are_an_error(put):
    path = put("a.jsonl", [{"question_id": "x", "text": "yes"}])
    with pytest.raises(InputError, match=r"a\.jsonl, line 1: the key 'prompt' is missing"):
        answer_lines(prompt=str).read(path)


@pytest.mark.parametrize(("content", "complaint"), [("{", "not valid JSON"), ("[]", "expected a JSON object")])
def test_a_broken_annotation_file_is_named(put, content, complaint):
    path = put("annotations.txt", content)
    with pytest.raises(InputError, match=rf"annotations\.txt: {complaint}"):
        read_json(path, dict)


def test_an_annotation_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*absent\.json: No such file"):
        read_json(tmp_path / "absent.json", dict)


def test_groups_are_averaged_in_percent_and_sorted_as_numbers_where_they_are():
    groups = percent_by([10, 9, 10], [1, 0, 0])
    assert groups == {"9": {"value": 0.0, "count": 1}, "10": {"value": 50.0, "count": 2}}
    assert list(groups) == ["9", "10"]


def test_the_interval_is_in_percent_and_reproducible():
    scores = [1.0] * 90 + [0.0] * 10
    low, high = percent_interval(scores)
    assert (low, high) == percent_interval(scores)
    assert 80 < low < 90 < high < 100


def test_errors_of_a_comparison_name_the_files_by_their_flags():
    with (
        pytest.raises(InputError, match=r"^no match \(--result-file a\.jsonl, --data-dir b\)$"),
        naming_files(result_file="a.jsonl", data_dir="b"),
    ):
        raise InputError("no match")


def test_a_result_is_printed_and_written_and_what_is_missing_is_said(tmp_path, capsys, caplog):
    result = Result("pope", "mean F1", 50.0, 8, 1, 2, (40.0, 60.0))
    publish(result, "F1 0.5", str(tmp_path / "r.json"))
    assert capsys.readouterr().out == "F1 0.5\n"
    assert "1 of 8 questions without an answer, 2 answers that cannot be read" in caplog.text
    assert json.loads((tmp_path / "r.json").read_text())["missing"] == 1


def test_what_was_lost_of_the_questions_is_said_with_the_score(put, caplog):
    lines = [{"question_id": i, "text": "", "metadata": {"cut": 4} if i < 2 else {}} for i in range(3)]
    assert len(answer_lines().read(put("a.jsonl", lines))) == 3
    assert "of 3 questions 2 whose prompt lost its end" in caplog.text
