import pytest

from llava.eval import model_vqa
from llava.records import InputError


def test_the_text_tower_is_given_the_question_as_it_stands(ask, questions, echo_model):
    records = ask(model_vqa, question_file=questions.file, image_folder=questions.images)
    texts = [line["text"] for line in questions.lines]
    assert [record["prompt"] for record in records] == texts
    assert [text for call in echo_model.calls for text in call["texts"]] == texts
    assert {call["max_new_tokens"] for call in echo_model.calls} == {1024}


def test_a_record_has_llavas_keys_in_llavas_order(ask, questions):
    record = ask(model_vqa, question_file=questions.file, image_folder=questions.images)[0]
    assert list(record) == ["question_id", "prompt", "text", "answer_id", "model_id", "metadata"]


def test_a_question_without_an_image_is_refused_before_the_model_loads(ask, put, loads):
    path = put("q.jsonl", [{"question_id": 1, "text": "What?"}])
    with pytest.raises(InputError, match=r"q\.jsonl, line 1: the key 'image' is missing"):
        ask(model_vqa, question_file=path)
    assert loads == []


def test_llavas_defaults_are_kept():
    args = model_vqa.build_parser().parse_args([])
    assert (args.question_file, args.answers_file) == ("tables/question.jsonl", "answer.jsonl")
    assert (args.temperature, args.num_beams, args.max_new_tokens) == (0.2, 1, 1024)


def test_questions_as_windows_saves_them_are_asked_alike(ask, questions):
    texts = [record["text"] for record in ask(model_vqa, question_file=questions.file, image_folder=questions.images)]
    content = questions.file.read_bytes().replace(b"\n", b"\r\n")
    questions.file.write_bytes(b"\xef\xbb\xbf" + content + b"\r\n")
    again = ask(model_vqa, question_file=questions.file, image_folder=questions.images)
    assert [record["text"] for record in again] == texts
