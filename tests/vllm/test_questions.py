"""The question in a prompt is what evaluation compares with the image, in every template that LLaVA has."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llava.asking.prompts import OPTION_LETTER, SHORT_ANSWER, first_turn
from llava.conversation import conv_templates
from llava.vllm.questions import from_bytes, question_of, to_bytes

ONE_TURN = [name for name, template in conv_templates.items() if template.roles[0]]


@pytest.mark.parametrize("suffix", ["", SHORT_ANSWER, OPTION_LETTER])
@pytest.mark.parametrize("mode", ONE_TURN)
def test_it_is_found_in_every_template(mode, suffix):
    question = "What color is the car?\nIs it new?"
    assert question_of(first_turn(f"<image>\n{question}{suffix}", mode)) == question


@pytest.mark.parametrize("mode", ["vicuna_v1", "mistral_instruct", "chatml_direct"])
def test_it_is_that_of_the_last_turn(mode):
    conversation = conv_templates[mode].copy()
    for text in ("<image>\nWhat is this?", "A car.", "What color is it?", None):
        conversation.append_message(conversation.roles[len(conversation.messages) % 2], text)
    assert question_of(conversation.get_prompt()) == "What color is it?"


def test_a_prompt_without_turns_is_one():
    assert question_of("<image>\nA picture of") == "A picture of"
    assert question_of("<image>") == ""


@given(st.text())
def test_it_arrives_as_it_was_sent(text):
    sent = to_bytes(text)
    padded = torch.cat([sent, torch.zeros(5, dtype=torch.uint8)])
    assert sent.dtype == torch.uint8 and len(sent) > 0
    arrived = from_bytes(padded)
    assert arrived == from_bytes(sent)
    if "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text):
        assert arrived == text
