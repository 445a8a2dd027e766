from types import SimpleNamespace

import pytest

from llava.asking.prompts import check_conv_mode, conv_mode_of_plain_model, first_turn, image_token
from llava.records import InputError


def test_an_unknown_template_lists_the_known_ones():
    with pytest.raises(InputError, match=r"--conv-mode 'vicuna'.*llava_v1.*vicuna_v1"):
        check_conv_mode("vicuna")


def test_a_plain_model_gets_the_mmtag_template_where_there_is_one():
    assert conv_mode_of_plain_model("llava-7b-plain", "v1") == "v1_mmtag"
    assert conv_mode_of_plain_model("llava-7b-plain", "v1_mmtag") == "v1_mmtag"


@pytest.mark.parametrize(("name", "mode"), [("plain", "vicuna_v1"), ("plain-finetune", "v1"), ("llava-v1.5-7b", "v1")])
def test_every_other_model_keeps_the_template_it_was_given(name, mode):
    assert conv_mode_of_plain_model(name, mode) == mode


def test_the_image_has_marks_around_it_if_the_model_was_trained_so():
    assert image_token(SimpleNamespace()) == "<image>"
    assert image_token(SimpleNamespace(mm_use_im_start_end=True)) == "<im_start><image><im_end>"


def test_the_prompt_is_one_user_turn_waiting_for_its_answer():
    prompt = first_turn("<image>\nIs it red?", "vicuna_v1")
    assert prompt.endswith("questions. USER: <image>\nIs it red? ASSISTANT:")
    assert first_turn("Q", "vicuna_v1").count("USER") == 1
