import json
import os
import shutil
from argparse import Namespace
from dataclasses import replace
from functools import partial

import pytest

from llava.eval import model_vqa_loader
from llava.eval.ask import identity
from llava.eval.ask import program as evaluation
from llava.eval.tasks.base import SHORT, vqa_samples
from llava.records import InputError


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


def test_a_question_file_that_windows_saved_holds_the_same_questions(evaluate, questions, loads):
    evaluate()
    questions.file.write_bytes(b"\xef\xbb\xbf" + questions.file.read_bytes().replace(b"\n", b"\r\n"))
    evaluate()
    assert len(loads) == 1


def test_a_program_that_shows_pruners_other_texts_does_not_go_on(evaluate, loads, monkeypatch):
    evaluate()
    header = evaluate.answers.with_name("echo.jsonl.run")
    head = json.loads(header.read_text())
    shown = replace(SHORT, samples=partial(vqa_samples, query=str.upper))
    monkeypatch.setattr(model_vqa_loader, "SHORT", shown)
    with pytest.raises(InputError, match="answers of another run: sha256 of the queries"):
        evaluate()
    del head["settings"]["sha256 of the queries"]  # as of a run before they were noted
    header.write_text(json.dumps(head))
    evaluate()
    assert len(loads) == 1


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


class TestFilesAreKnownByWhatTheyHold:
    @pytest.fixture
    def checkpoint(self, llava_shapes, tmp_path):
        shutil.copytree(os.path.dirname(llava_shapes), tmp_path / "checkpoints")
        return tmp_path / "checkpoints" / os.path.basename(llava_shapes)

    @pytest.fixture
    def asks(self, evaluate, checkpoint):
        def call(**attributes):
            return evaluate(**{"model_path": str(checkpoint), "conv_mode": "vicuna_v1"} | attributes)

        return call

    @pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.model", "tokenizer_config.json"])
    def test_another_checkpoint_in_the_same_place_is_refused_by_the_file_that_differs(
        self, asks, checkpoint, loads, name, evaluate
    ):
        records = asks()
        change(checkpoint / name)
        with pytest.raises(InputError, match=f"checkpoint, {name}: .*, now .*--overwrite"):
            asks()
        assert len(loads) == 1 and [json.loads(x) for x in evaluate.answers.read_text().splitlines()] == records

    def test_another_tower_beside_it_is_refused(self, asks, checkpoint):
        asks()
        (tower,) = checkpoint.parent.glob("clip*")
        change(tower / "model.safetensors")
        with pytest.raises(InputError, match=r"tower, model\.safetensors: "):
            asks()

    def test_a_copy_in_another_place_with_another_time_is_the_same(self, asks, checkpoint, questions, tmp_path, loads):
        asks()
        shutil.copytree(checkpoint.parent, tmp_path / "moved")
        shutil.copytree(questions.images, tmp_path / "moved images")
        for file in (tmp_path / "moved").rglob("*"):
            os.utime(file, (1, 1))
        asks(model_path=str(tmp_path / "moved" / checkpoint.name), image_folder=tmp_path / "moved images")
        assert len(loads) == 1

    def test_another_image_in_the_same_place_is_refused(self, asks, questions):
        asks()
        change(questions.images / "4.png")
        with pytest.raises(InputError, match=r"question number 5, .*4\.png: .*, now .*"):
            asks()

    def test_an_image_that_is_gone_or_mended_is_no_other_one(self, asks, questions, loads):
        whole = (questions.images / "3.png").read_bytes()
        (questions.images / "3.png").write_bytes(b"broken")
        with pytest.raises(InputError, match="question 3"):
            asks()
        (questions.images / "3.png").write_bytes(whole)
        asks()
        (questions.images / "3.png").unlink()
        asks()
        assert len(loads) == 2

    def test_answers_say_to_which_checkpoint_and_image_they_belong(self, asks, checkpoint, questions):
        (first, *_), files = asks(), identity.of_run(checkpoint=str(checkpoint))
        assert first["metadata"]["run"]["files"]["checkpoint"] == identity.digest(files["checkpoint"])
        assert first["metadata"]["media"] == identity.of_file(questions.images / "0.png")

    def test_a_run_of_before_is_continued_by_name_with_a_warning(self, asks, evaluate, checkpoint, caplog):
        records = asks()
        header = evaluate.answers.with_name("echo.jsonl.run")
        header.write_text(json.dumps({"settings": json.loads(header.read_text())["settings"]}))
        change(checkpoint / "config.json")
        assert asks() == records
        assert "does not say what its files held" in caplog.text
        with pytest.raises(InputError, match="model_path: "):
            asks(model_path="another/llava")


def change(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    "words", [{"positions": "compact"}, {"prune_layer": 0}, {"text_chunking": "release"}, {"vision_dtype": "float32"}]
)
def test_a_default_in_words_is_the_same_setting_either_way_round(evaluate, loads, words):
    evaluate(visual_token_num=9)
    evaluate(visual_token_num=9, **words)
    evaluate(visual_token_num=9, overwrite=True, **words)
    evaluate(visual_token_num=9)
    assert len(loads) == 2


@pytest.mark.parametrize("batch_size", [1, 7])
def test_a_run_that_fails_before_its_first_answer_leaves_nothing(evaluate, questions, tmp_path, batch_size):
    for image in questions.images.iterdir():
        image.write_bytes(b"broken")
    before = sorted(tmp_path.rglob("*"))
    for file in (evaluate.answers, tmp_path / "new" / "folders" / "a.jsonl"):
        with pytest.raises(InputError, match="cannot read the image"):
            evaluate(batch_size=batch_size, answers_file=file)
        assert sorted(tmp_path.rglob("*")) == before


def test_a_checkpoint_that_does_not_load_leaves_nothing(evaluate, tmp_path, monkeypatch):
    def refuse(*_):
        raise InputError("cannot load it")

    monkeypatch.setattr(evaluation, "load_model", refuse)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match="cannot load it"):
        evaluate()
    assert sorted(tmp_path.rglob("*")) == before


def test_what_was_lost_is_counted_at_the_end_of_every_run(evaluate, questions, caplog):
    lines = [{**line, "text": f"<image> {line['text']}"} if i < 2 else line for i, line in enumerate(questions.lines)]
    questions.file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (questions.images / "3.png").unlink()
    records = evaluate(on_error="skip")
    assert [record["metadata"].get("placeholders") for record in records] == [1, 1, *[None] * 5]
    caplog.clear()
    evaluate(on_error="skip")
    assert "of 7 questions 1 without an answer" in caplog.text
    assert "2 that lost words which stand for images (placeholders)" in caplog.text


def test_a_system_without_locks_is_told_what_a_run_needs_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("llava.eval.ask.locks.fcntl", None)
    args = Namespace(answers_file=tmp_path / "a.jsonl", num_chunks=1, chunk_idx=0)
    with pytest.raises(InputError, match="fcntl, which Python has on Linux"):
        evaluation.evaluate(args, None, [], tmp_path / "q.jsonl")
    assert not list(tmp_path.iterdir())
