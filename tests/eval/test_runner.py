from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llava.eval.dataset import QuestionDataset, left_pad, stack_images
from llava.eval.model_vqa_loader import CustomDataset
from llava.eval.records import InputError
from llava.eval.runner import Run, generation_options, pad_token_id, run


@pytest.fixture
def dataset(questions, loaded):
    return CustomDataset(
        questions.lines, questions.images, loaded.tokenizer, loaded.image_processor, loaded.model.config, "vicuna_v1"
    )


@pytest.fixture
def ask(dataset, loaded):
    """Run the whole dataset and return the records written, in question order."""

    def run_with(**changes):
        plan = replace(Run("echo", generation=generation_options()), **changes)
        run_with.records = {}
        run(dataset, loaded.model, loaded.tokenizer, plan, run_with.records.__setitem__)
        return [run_with.records[index] for index in range(len(dataset))]

    return run_with


def asked(records):
    return [(record["question_id"], record["prompt"], record["text"]) for record in records]


def test_a_record_has_llavas_keys_in_llavas_order(ask, questions):
    record = ask(settings={"pruner": "none"})[3]
    assert list(record) == ["question_id", "prompt", "text", "answer_id", "model_id", "metadata"]
    assert record["prompt"] == questions.lines[3]["text"] and record["model_id"] == "echo"
    assert len(record["answer_id"]) == 22
    assert record["metadata"].pop("latency_ms") > 0
    assert record["metadata"] == {
        "visual_tokens": 5, "newline_tokens": 0, "tokens_before": 9, "tiles": 1, "pruner": "none"
    }  # fmt: skip


def test_answers_follow_the_questions_even_where_ids_repeat(ask, questions):
    assert [record["question_id"] for record in ask()] == [line["question_id"] for line in questions.lines]


@pytest.mark.parametrize(("batch_size", "num_workers"), [(2, 0), (3, 2), (7, 1), (50, 0)])
def test_batch_size_and_workers_change_no_answer(ask, batch_size, num_workers):
    alone = asked(ask())
    assert asked(ask(batch_size=batch_size, num_workers=num_workers)) == alone
    assert len({text for *_, text in alone}) == 7


def test_the_text_tower_is_given_the_question_without_its_suffix(ask, echo_model):
    ask()
    assert [call["texts"] for call in echo_model.calls[:2]] == [["Is it red?"], ["Is it very red?"]]


def test_questions_of_similar_length_share_a_batch_the_longest_first(ask, echo_model):
    ask(batch_size=2)
    assert [[text.count("very") for text in call["texts"]] for call in echo_model.calls] == [
        [6, 5],
        [4, 3],
        [2, 1],
        [0],
    ]


def test_questions_asked_one_by_one_keep_their_order(ask, echo_model):
    ask()
    assert list(ask.records) == list(range(7))
    assert [call["texts"][0].count("very") for call in echo_model.calls] == list(range(7))


def test_sorting_saves_padding_and_changes_no_answer(ask, dataset, echo_model):
    order = [3, 0, 6, 1, 5, 2, 4]
    dataset.samples = [dataset.samples[index] for index in order]
    alone = asked(ask())
    lengths = [dataset.prompt_length(index) for index in range(7)]
    unsorted = sum(2 * max(pair) - sum(pair) for pair in zip(lengths[0:6:2], lengths[1:6:2], strict=True))
    echo_model.calls.clear()
    assert asked(ask(batch_size=2)) == alone
    step = sorted(lengths)[1] - sorted(lengths)[0]
    assert sum(call["padding"] for call in echo_model.calls) == 3 * step < unsorted


@pytest.mark.parametrize("damage", ["missing", "truncated", "not an image"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_stops_at_an_unreadable_image_with_every_answer_so_far_saved(ask, questions, damage, batch_size):
    spoil(questions.images / "5.png", damage)
    with pytest.raises(InputError, match=r"question 5: .*5\.png.*a rerun continues here \(--on-error skip goes on\)"):
        ask(batch_size=batch_size)
    assert sorted(ask.records) == ([0, 1, 2, 3, 4] if batch_size == 1 else [3, 4, 6])  # 3 to 6 are one batch


@pytest.mark.parametrize("batch_size", [1, 4])
def test_skipping_records_the_unreadable_image_and_goes_on(ask, questions, batch_size):
    whole = asked(ask())
    spoil(questions.images / "2.png", "truncated")
    records = ask(batch_size=batch_size, on_error="skip", settings={"pruner": "none"})
    assert asked(records[:2] + records[3:]) == whole[:2] + whole[3:]
    assert records[2]["text"] == "" and records[2]["metadata"]["pruner"] == "none"
    assert "question 2" in records[2]["metadata"]["error"] and "2.png" in records[2]["metadata"]["error"]


def test_a_batch_without_one_readable_image_is_skipped_whole(ask, questions, echo_model):
    for name in ("1.png", "2.png"):
        spoil(questions.images / name, "missing")
    records = ask(batch_size=2, on_error="skip")
    assert [bool(record["text"]) for record in records] == [True] + [False] * 2 + [True] * 4
    assert len(echo_model.calls) == 3


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_a_question_without_an_image_is_answered_beside_those_with_one(dataset, loaded, echo_model, batch_size):
    samples = [replace(sample, image=None) if i in (0, 1, 4) else sample for i, sample in enumerate(dataset.samples)]
    dataset = QuestionDataset(samples, loaded.tokenizer, loaded.image_processor, loaded.model.config, "vicuna_v1")
    plan, written = Run("echo", generation=generation_options(), batch_size=batch_size), {}
    run(dataset, loaded.model, loaded.tokenizer, plan, written.__setitem__)
    records = [written[index] for index in range(7)]
    assert ["no image" in record["text"] for record in records] == [i in (0, 1, 4) for i in range(7)]
    assert [record["metadata"]["visual_tokens"] for record in records] == [0, 0, 5, 5, 0, 5, 5]
    assert [record["metadata"]["tiles"] for record in records] == [0, 0, 1, 1, 0, 1, 1]


def spoil(path, damage):
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"<html>not found</html>")


def test_greedy_decoding_is_given_no_sampling_argument():
    assert generation_options(temperature=0, top_p=0.5) == {
        "num_beams": 1, "max_new_tokens": 128, "use_cache": True, "do_sample": False
    }  # fmt: skip


def test_a_temperature_means_sampling():
    options = generation_options(temperature=0.2, top_p=0.7, num_beams=2, max_new_tokens=9)
    assert (options["do_sample"], options["temperature"], options["top_p"]) == (True, 0.2, 0.7)
    assert (options["num_beams"], options["max_new_tokens"]) == (2, 9)


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=5))
def test_left_padding_puts_every_prompt_at_the_right_edge(rows):
    ids, mask = left_pad([torch.tensor(row) for row in rows], pad_id=0)
    assert ids.shape == mask.shape == (len(rows), max(map(len, rows)))
    for row, padded, kept in zip(rows, ids, mask, strict=True):
        assert padded[kept].tolist() == row and padded.tolist() == [0] * (len(padded) - len(row)) + row


def test_plain_images_are_stacked_and_tiled_ones_stay_apart():
    assert stack_images([torch.zeros(3, 8, 8)] * 2).shape == (2, 3, 8, 8)
    tiled = stack_images([torch.zeros(5, 3, 8, 8), torch.zeros(3, 3, 8, 8)])
    assert [len(image) for image in tiled] == [5, 3]


def test_a_tokenizer_without_a_pad_token_pads_with_the_end(llama_tokenizer):
    assert llama_tokenizer.pad_token_id is None
    assert pad_token_id(llama_tokenizer) == llama_tokenizer.eos_token_id
