import pytest
import torch
from PIL import Image

from llava.asking.batch import generation_options
from llava.asking.load import load_model
from llava.constants import IMAGE_TOKEN_INDEX
from llava.pruners import resolve_pruner
from llava.serve.chat import Chat
from llava.serve.cli import build_parser

IMAGE = Image.new("RGB", (9, 12), (200, 30, 30))


TURNS = {
    "vicuna_v1": ("It is red.</s>", "{0} USER: <image>\nQ1 ASSISTANT: {1}</s>USER: Q2 ASSISTANT: {1}</s>"),
    "mistral_instruct": ("It is red.</s>", "[INST] <image>\nQ1 [/INST] {1} </s>[INST] Q2 [/INST] {1} </s>"),
    "llava_v0": (
        "It is red.\n### Human: stop",
        "{0}###Human: <image>\nQ1###Assistant: {1}###Human: Q2###Assistant: {1}###",
    ),
}


class TestChat:
    @pytest.mark.parametrize("conv_mode", TURNS)
    def test_a_turn_sees_those_before_it_each_ended_once_and_the_image_first(self, loaded, model, conv_mode):
        model.reply, prompt = TURNS[conv_mode]
        chat = Chat(loaded, IMAGE, conv_mode)
        for query in ("Q1", "Q2"):
            shown = []
            assert str(chat.ask(query, shown.append)) == "It is red." == "".join(shown).strip()
        assert chat.conversation.get_prompt() == prompt.format(chat.conversation.system, "It is red.")
        assert [call["ids"].count(IMAGE_TOKEN_INDEX) for call in model.calls] == [1, 1]

    def test_the_model_gets_the_same_image_and_each_turns_own_question(self, loaded, model):
        chat = Chat(loaded, IMAGE, "vicuna_v1")
        for query in ("What color is it?", "How many?"):
            chat.ask(query, do_sample=False)
        first, second = model.calls
        assert torch.equal(first["images"], second["images"]) and first["images"].shape == (1, 3, 8, 8)
        assert (first["texts"], second["texts"]) == (["What color is it?"], ["How many?"])
        assert first["image_sizes"] == second["image_sizes"] == [(9, 12)]
        assert first["do_sample"] is False

    def test_conversations_do_not_share_their_turns(self, loaded):
        one, other = Chat(loaded, IMAGE, "vicuna_v1"), Chat(loaded, IMAGE, "vicuna_v1")
        one.ask("Q1")
        assert len(one.conversation.messages) == 2 and list(other.conversation.messages) == []


def test_the_embedded_model_prunes_for_every_turn_and_answers_as_without_a_conversation():
    args = build_parser().parse_args(["--image-file", "-", "--device", "cpu"])
    loaded = load_model(args, resolve_pruner("cdpruner", visual_token_num=20))
    greedy = generation_options(max_new_tokens=5)
    chat, pieces, kept = Chat(loaded, IMAGE.resize((96, 96)), "vicuna_v1"), [], []
    for query in ("What color is the shape?", "How many shapes are there?"):
        pieces.append("")

        def show(piece):
            pieces[-1] += piece

        answer = chat.ask(query, show, **greedy)
        assert pieces[-1].strip() == answer.text
        kept.append(loaded.model.last_prune.keep[0].tolist())
    assert len(kept[0]) == len(kept[1]) == 20 and kept[0] != kept[1]
    alone = loaded.answer(IMAGE.resize((96, 96)), "What color is the shape?", max_new_tokens=5)
    assert chat.conversation.messages[1][1] == alone.text
