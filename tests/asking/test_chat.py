"""Conversations with a model of either format."""

import pytest
import torch
from PIL import Image

import llava
from llava.asking.llava import LlavaModel
from llava.constants import IMAGE_TOKEN_INDEX
from llava.conversation import conv_templates
from llava.records import InputError
from llava.selecting.options import PruningOptions

from ..serve.conftest import loaded, model  # noqa: F401  one that says what it is told to

IMAGE = Image.new("RGB", (9, 12), (200, 30, 30))
DIVPRUNE = {"pruner": "divprune", "visual_token_num": 20}

TURNS = {
    "vicuna_v1": ("It is red.</s>", "{0} USER: <image>\nQ1 ASSISTANT: {1}</s>USER: Q2 ASSISTANT: {1}</s>"),
    "mistral_instruct": ("It is red.</s>", "[INST] <image>\nQ1 [/INST] {1} </s>[INST] Q2 [/INST] {1} </s>"),
    "llava_v0": (
        "It is red.\n### Human: stop",
        "{0}###Human: <image>\nQ1###Assistant: {1}###Human: Q2###Assistant: {1}###",
    ),
}


class TestTemplates:
    @pytest.mark.parametrize("conv_mode", TURNS)
    def test_a_turn_sees_those_before_it_each_ended_once_and_the_image_first(self, loaded, model, conv_mode):  # noqa: F811
        model.reply, prompt = TURNS[conv_mode]
        talking = LlavaModel("talkative", loaded.tokenizer, model, loaded.image_processor, conv_mode)
        chat = talking.chat(IMAGE)
        for query in ("Q1", "Q2"):
            shown = []
            assert str(chat.ask(query, shown.append)) == "It is red." == "".join(shown).strip()
        assert chat.history.text() == prompt.format(conv_templates[conv_mode].system, "It is red.")
        assert [call["ids"].count(IMAGE_TOKEN_INDEX) for call in model.calls] == [1, 1]

    def test_the_model_gets_the_same_image_and_each_turns_own_question(self, loaded, model):  # noqa: F811
        chat = loaded.chat(IMAGE)
        for query in ("What color is it?", "How many?"):
            chat.ask(query, show=print)
        first, second = model.calls
        assert torch.equal(first["images"], second["images"]) and first["images"].shape == (1, 3, 8, 8)
        assert (first["texts"], second["texts"]) == (["What color is it?"], ["How many?"])
        assert first["image_sizes"] == second["image_sizes"] == [(9, 12)]
        assert first["do_sample"] is False

    def test_conversations_do_not_share_their_turns(self, loaded):  # noqa: F811
        one, other = loaded.chat(IMAGE), loaded.chat(IMAGE)
        one.ask("Q1", show=print)
        assert [question for question, _ in one.turns] == ["Q1"] and other.turns == []
        assert "Q1" in one.history.text() and "Q1" not in other.history.text()

    def test_the_sides_have_names_without_marks(self, loaded, model):  # noqa: F811
        names = {
            "vicuna_v1": ("USER", "ASSISTANT"),
            "chatml_direct": ("user", "assistant"),
            "plain": ("user", "assistant"),
        }
        for conv_mode, expected in names.items():
            talking = LlavaModel("talkative", loaded.tokenizer, model, loaded.image_processor, conv_mode)
            assert talking.chat(IMAGE).history.names == expected


@pytest.fixture(scope="module", params=["native", "hosted"])
def loaded_one(request, converted):
    if request.param == "hosted":
        request.getfixturevalue("can_prune")
    return llava.load(converted if request.param == "hosted" else None, device="cpu")


class TestChat:
    @pytest.fixture
    def chat(self, loaded_one, scenes):
        return loaded_one.chat(scenes[0].image)

    def test_begins_as_a_question_by_itself_and_streams(self, loaded_one, chat, scenes):
        pieces = []
        answer = chat.ask("What color is the shape?", pieces.append, max_new_tokens=6)
        assert answer == loaded_one.answer(scenes[0].image, "What color is the shape?", max_new_tokens=6)
        assert "".join(pieces).strip() == answer.text
        further = chat.ask("How many shapes are there?", max_new_tokens=6)
        assert further.prompt_tokens > answer.prompt_tokens and further.visual_tokens == 144
        assert [each.text for _, each in chat.turns] == [answer.text, further.text]
        assert answer.text in chat.history.text()

    def test_formats_read_the_same_conversation(self, converted, scenes, can_prune):
        chats = [llava.load(path, device="cpu").chat(scenes[0].image) for path in (None, converted)]
        for question in ("What color is the shape?", "How many shapes are there?"):
            one, other = (chat.ask(question, pruning=DIVPRUNE, max_new_tokens=6) for chat in chats)
            assert (one.text, one.prompt_tokens) == (other.text, other.prompt_tokens)

    def test_switches_its_pruner_between_turns_and_for_one_alone(self, loaded_one, chat):
        def read(**options):
            return chat.ask("What color is the shape?", max_new_tokens=1, **options).visual_tokens

        assert read() == 144
        chat.prune(**DIVPRUNE)
        assert read() == 20 and read(pruning={"pruner": "uniform", "visual_token_num": 9}) == 9 and read() == 20
        assert read(pruning=None) == 144 and chat.options.pruner.visual_token_num == 20
        chat.prune(None)
        assert read() == 144
        assert loaded_one.options == PruningOptions()  # another conversation prunes as ever

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"pruner": "best", "visual_token_num": 9}, "unknown pruner 'best'"),
            ({"pruner": "divprune"}, "divprune needs a budget"),
            ({"pruner": "fastv", "visual_token_num": 9, "prune_layer": 1}, "prune_layer of a call must be the model's"),
        ],
    )
    def test_goes_on_behind_what_cannot_be_done(self, chat, options, message):
        chat.prune(**DIVPRUNE)
        with pytest.raises(ValueError, match=message):
            chat.prune(**options)
        with pytest.raises(ValueError, match=message):
            chat.ask("How many?", pruning=options)
        with pytest.raises(InputError, match="the question is empty"):
            chat.ask(" <image> ")
        assert chat.turns == []
        assert chat.ask("How many shapes are there?", max_new_tokens=1).visual_tokens == 20

    def test_of_no_image_or_two_shows_as_many(self, loaded_one, scenes):
        assert loaded_one.chat().ask("What is a square?", max_new_tokens=1).visual_tokens == 0
        both = loaded_one.chat([scenes[0].image, scenes[1].image])
        assert both.ask("Are these alike?", max_new_tokens=1).visual_tokens == 288

    def test_that_grew_over_the_limit_is_refused_and_can_go_on_with_fewer_tokens(self, scenes, monkeypatch):
        chat = llava.load(device="cpu").chat(scenes[0].image)
        limit = chat.ask("What color is the shape?", max_new_tokens=2).prompt_tokens
        monkeypatch.setattr(chat.model.model.config, "tokenizer_model_max_length", limit)
        with pytest.raises(InputError, match="the question 'How many\\?' would lose its end"):
            chat.ask("How many?", max_new_tokens=2)
        assert len(chat.turns) == 1
        assert chat.ask("How many?", pruning=DIVPRUNE, max_new_tokens=2).prompt_tokens < limit


def test_the_embedded_model_prunes_for_every_turn():
    chat = llava.load(device="cpu", pruner="cdpruner", visual_token_num=20).chat(IMAGE.resize((96, 96)))
    questions = ("What color is the shape?", "How many shapes are there?")
    kept = [chat.ask(question, max_new_tokens=5).keep[0].tolist() for question in questions]
    assert len(kept[0]) == len(kept[1]) == 20 and kept[0] != kept[1]
