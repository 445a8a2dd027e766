from argparse import Namespace
from dataclasses import replace

import pytest

from llava.asking import llava as llava_module
from llava.asking.batch import generation_options
from llava.asking.load import load_model
from llava.asking.prompts import first_turn
from llava.command import with_defaults
from llava.eval.ask.dataset import QuestionDataset
from llava.eval.ask.loop import Run, run
from llava.eval.model_vqa_loader import CustomDataset, build_parser
from llava.mm_utils import tokenizer_image_token
from llava.pruners import resolve_pruner
from llava.records import InputError


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
        run(dataset, loaded, plan, run_with.records.__setitem__)
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
    run(dataset, loaded, plan, written.__setitem__)
    records = [written[index] for index in range(7)]
    assert ["no image" in record["text"] for record in records] == [i in (0, 1, 4) for i in range(7)]
    assert [record["metadata"]["visual_tokens"] for record in records] == [0, 0, 5, 5, 0, 5, 5]
    assert [record["metadata"]["tiles"] for record in records] == [0, 0, 1, 1, 0, 1, 1]


def spoil(path, damage):
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"<html>not found</html>")


class TestLosses:
    """What the embedded model's questions and answers lose, one by one and in batches."""

    @pytest.fixture
    def shapes(self, llava_shapes, questions):
        """Answer questions of the given texts; returns their metadata."""
        loaded = load_model(with_defaults(Namespace(model_path=llava_shapes, device="cpu"), build_parser()), None)

        def call(texts, pruner=None, batch_size=1, limit=None, max_new_tokens=8):
            lines = [{**line, "text": text} for line, text in zip(questions.lines, texts, strict=False)]
            places = (lines, questions.images, loaded.tokenizer, loaded.image_processor, loaded.model.config)
            loaded.model.set_pruner(pruner)
            loaded.model.config.tokenizer_model_max_length = limit
            plan = Run("shapes", generation=generation_options(max_new_tokens=max_new_tokens), batch_size=batch_size)
            records = {}
            run(CustomDataset(*places, "vicuna_v1"), loaded, plan, records.__setitem__)
            return [records[index]["metadata"] for index in range(len(lines))]

        def text_tokens(text):
            return len(tokenizer_image_token(first_turn(f"<image>\n{text}", "vicuna_v1"), loaded.tokenizer)) - 1

        call.prompt_length = text_tokens
        return call

    @pytest.mark.parametrize("batch_size", [1, 3])
    @pytest.mark.parametrize("pruner", [None, resolve_pruner("divprune", 9)])
    def test_positions_over_the_length_limit(self, shapes, pruner, batch_size):
        texts = ["How many shapes are there?", f"{'The scene was drawn. ' * 9}How many?", "Which?"]
        whole = shapes(texts, pruner, batch_size)
        assert not any("cut" in metadata for metadata in whole)
        visual = whole[0]["visual_tokens"]
        limit = visual + shapes.prompt_length(texts[0])
        cut = [metadata.get("cut") for metadata in shapes(texts, pruner, batch_size, limit)]
        assert cut[0] is None and cut[2] is None
        assert cut[1] == shapes.prompt_length(texts[1]) - shapes.prompt_length(texts[0])

    def test_the_end_of_an_answer_that_has_no_room(self, shapes):
        (short,), (whole,) = (shapes(["How many shapes are there?"], max_new_tokens=n) for n in (1, 8))
        assert short["unfinished"] is True and "unfinished" not in whole

    def test_what_clip_does_not_read_of_a_query_in_one_piece(self, shapes):
        texts = ["How many shapes are there?", "Is there a red square? " * 40]
        for name, asks_clip in {"cdpruner": True, "trim": True, "divprune": False}.items():
            short, long = shapes(texts, resolve_pruner(name, 9), batch_size=2)
            assert "query_cut" not in short and (long.get("query_cut", 0) > 0) == asks_clip

    @pytest.mark.parametrize("text", ["Is <image> red?", "<image>", "<im<image>age> what?", "</s><unk><s> <pad>", ""])
    def test_words_that_look_like_placeholders_or_specials_get_an_answer(self, shapes, text):
        (metadata,) = shapes([text])
        assert metadata.get("placeholders", 0) == (2 if text.startswith("<im<") else text.count("<image>"))
        assert "error" not in metadata


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_text_that_no_tokenizer_reads_is_an_error_as_an_image_is(dataset, ask, batch_size):
    samples = list(dataset.samples)
    dataset.samples = [replace(s, prompt=s.prompt + "\ud83d") if i == 4 else s for i, s in enumerate(samples)]
    with pytest.raises(InputError, match=r"question 4: its text holds '\\ud83d', which is no character"):
        ask(batch_size=batch_size)
    records = ask(batch_size=batch_size, on_error="skip")
    assert ["error" in record["metadata"] for record in records] == [index == 4 for index in range(7)]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_an_image_that_cannot_be_prepared_is_an_error_as_one_that_cannot_be_read(ask, monkeypatch, loaded, batch_size):
    prepare = llava_module.process_images

    def refuse_the_third(images, *rest):
        if images[0].width == 10:
            raise ValueError("height and width must be > 0")
        return prepare(images, *rest)

    monkeypatch.setattr(llava_module, "process_images", refuse_the_third)
    with pytest.raises(InputError, match=r"question 2: cannot use the image .*2\.png of 10 x 12 pixels, mode RGB: "):
        ask(batch_size=batch_size)
    assert "error" in ask(batch_size=batch_size, on_error="skip")[2]["metadata"]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_prompt_that_the_model_refuses_costs_no_other_its_answer(ask, monkeypatch, echo_model, batch_size):
    whole, generate = asked(ask()), echo_model.generate

    def refuse(*args, texts, **options):
        if any(text.count("very") == 4 for text in texts):
            raise ValueError("the prompt is too long")
        return generate(*args, texts=texts, **options)

    monkeypatch.setattr(echo_model, "generate", refuse)
    with pytest.raises(InputError, match="question 4 cannot be asked: the prompt is too long"):
        ask(batch_size=batch_size)
    records = ask(batch_size=batch_size, on_error="skip")
    assert asked(records[:4] + records[5:]) == whole[:4] + whole[5:]
    assert "too long" in records[4]["metadata"]["error"]
