import json
from argparse import Namespace

import pytest

from llava.eval import evaluation, model_vqa_loader
from llava.eval.records import InputError


@pytest.fixture
def evaluate(questions, tmp_path, loads):
    """Run ``model_vqa_loader`` on the seven questions; returns the records on disk."""
    answers = tmp_path / "echo.jsonl"

    def call(**attributes):
        places = {"question_file": questions.file, "image_folder": questions.images, "answers_file": answers}
        model_vqa_loader.eval_model(Namespace(**places | {"num_workers": 0, "temperature": 0} | attributes))
        return [json.loads(line) for line in answers.read_text().splitlines()]

    call.answers = answers
    return call


def asked(records):
    return [(record["question_id"], record["prompt"], record["text"]) for record in records]


@pytest.mark.parametrize("batch_size", [1, 2, 7])
@pytest.mark.parametrize("whole_lines", [0, 1, 5, 6])
def test_a_run_cut_short_anywhere_is_continued_with_the_same_answers(evaluate, echo_model, whole_lines, batch_size):
    uncut = evaluate()
    lines = evaluate.answers.read_bytes().splitlines(keepends=True)
    evaluate.answers.write_bytes(b"".join(lines[:whole_lines]) + lines[whole_lines][:30])
    echo_model.calls.clear()
    records = evaluate(batch_size=batch_size)
    assert asked(records) == asked(uncut)
    assert records[:whole_lines] == uncut[:whole_lines]
    assert sum(call["rows"] for call in echo_model.calls) == 7 - whole_lines


@pytest.mark.parametrize("batch_size", [1, 2, 3])
@pytest.mark.parametrize("whole_lines", [0, 1, 3, 6])
def test_a_run_in_batches_that_is_killed_loses_no_answer_that_was_computed(
    evaluate, echo_model, monkeypatch, whole_lines, batch_size
):
    uncut = evaluate()
    echo_model.calls.clear()
    finish = evaluation.AnswersFile.finish
    monkeypatch.setattr(evaluation.AnswersFile, "finish", lambda answers: None)
    evaluate(batch_size=2, overwrite=True)
    monkeypatch.setattr(evaluation.AnswersFile, "finish", finish)
    (part,) = evaluate.answers.with_suffix("").iterdir()
    lines = part.read_bytes().splitlines(keepends=True)
    part.write_bytes(b"".join(lines[:whole_lines]) + lines[whole_lines][:30])
    saved = [json.loads(line) for line in lines[:whole_lines]]
    records = evaluate(batch_size=batch_size)
    assert asked(records) == asked(uncut)
    assert all(records[line["index"]] == line["answer"] for line in saved)
    assert sum(call["rows"] for call in echo_model.calls) == 7 + 7 - whole_lines
    assert not part.parent.exists()


def test_a_finished_run_does_not_even_load_the_model(evaluate, loads):
    records = evaluate()
    assert evaluate(batch_size=3, num_workers=1, on_error="skip", device="cpu") == records and len(loads) == 1


def test_overwriting_asks_everything_again(evaluate):
    first, second = evaluate(), evaluate(overwrite=True)
    assert asked(first) == asked(second)
    assert not {record["answer_id"] for record in first} & {record["answer_id"] for record in second}


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"visual_token_num": 9}, 'pruner: "none", now "cdpruner"; options: {}, now'),
        ({"temperature": 0.5}, "temperature: 0, now 0.5"),
        ({"conv_mode": "llava_v1"}, 'conv_mode: "vicuna_v1", now "llava_v1"'),
        ({"num_chunks": 2}, "num_chunks: 1, now 2"),
        ({"dtype": "bfloat16"}, 'dtype: "float32", now "bfloat16"'),
        (
            {"model_path": "another/llava", "conv_mode": "vicuna_v1"},
            'model_path: ".*llava-shapes", now "another/llava"',
        ),
        ({"image_folder": "."}, 'image_folder: ".*images with spaces", now'),
    ],
)
def test_a_changed_setting_is_refused_before_the_model_loads(evaluate, loads, changes, difference):
    records = evaluate()
    with pytest.raises(InputError, match=difference):
        evaluate(**changes)
    assert len(loads) == 1 and [json.loads(line) for line in evaluate.answers.read_text().splitlines()] == records


def test_a_changed_question_file_is_refused(evaluate, questions):
    evaluate()
    questions.file.write_text(questions.file.read_text().replace("red", "blue", 1))
    with pytest.raises(InputError, match="answers of another run: sha256 of the questions"):
        evaluate()


def test_options_left_to_their_defaults_are_the_same_as_defaults_spelled_out(evaluate, loads):
    evaluate()
    evaluate(pruner="none", dtype="float32", num_beams=1, max_new_tokens=128)
    assert len(loads) == 1


def test_an_unreadable_image_stops_the_run_and_skipping_it_completes_the_same_file(evaluate, questions):
    (questions.images / "3.png").unlink()
    with pytest.raises(InputError, match=r"question 3: .*3\.png"):
        evaluate()
    records = evaluate(on_error="skip")
    assert ["error" in record["metadata"] for record in records] == [False] * 3 + [True] + [False] * 3


def test_latencies_of_all_answers_are_summarised_whichever_run_they_are_from(evaluate, questions):
    (questions.images / "3.png").unlink()
    with pytest.raises(InputError):
        evaluate()
    records = evaluate(on_error="skip", save_latency=True)
    summary = json.loads(evaluate.answers.with_name("echo_latency.json").read_text())
    latencies = [record["metadata"]["latency_ms"] for record in records if "error" not in record["metadata"]]
    assert summary["individual_latencies"] == latencies and summary["statistics"]["count"] == 6
    assert summary["statistics"]["total_ms"] == pytest.approx(sum(latencies))


def test_an_empty_chunk_has_no_latency(evaluate):
    assert evaluate(num_chunks=20, chunk_idx=19, save_latency=True) == []
    assert not evaluate.answers.with_name("echo_latency.json").exists()
