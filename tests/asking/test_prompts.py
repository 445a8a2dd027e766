from types import SimpleNamespace

import pytest

from llava.asking.prompts import (
    check_conv_mode,
    conv_mode_of_plain_model,
    first_turn,
    image_token,
    lmms_query,
    mmbench_query,
    place_images,
    qbench_query,
    science_query,
    user_query,
    vqa_loader_query,
    vqa_query,
    with_images,
)
from llava.records import InputError


def test_an_unknown_template_lists_the_known_ones():
    with pytest.raises(InputError, match=r"^conv_mode 'vicuna'.*llava_v1.*vicuna_v1"):
        check_conv_mode("vicuna")
    with pytest.raises(InputError, match=r"^--conv-mode 'vicuna'"):
        check_conv_mode("vicuna", "--conv-mode")


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


SHORT = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."


@pytest.mark.parametrize("text", ["What is it?", f"What is it?{SHORT}", "Line one.\n\nLine two."])
def test_model_vqa_passes_the_question_as_it_stands(text):
    assert vqa_query(text) == text


@pytest.mark.parametrize(
    ("text", "query"),
    [
        (f"Is there a dog?{SHORT}", "Is there a dog?"),
        (f"Is there a dog?{SHORT}{SHORT}", "Is there a dog?"),
        (f"What brand?\nReference OCR token: ace, b, c{SHORT}", "What brand?\nReference OCR token: ace, b, c"),
        (
            f"Which?\nWhen the provided information is insufficient, respond with 'Unanswerable'.{SHORT}",
            "Which?\nWhen the provided information is insufficient, respond with 'Unanswerable'.",
        ),
        (f"How many?\nA. one\nB. two{LETTER}", f"How many?\nA. one\nB. two{LETTER}"),
        ("Answer the question using a single word or phrase.", "Answer the question using a single word or phrase."),
    ],
)
def test_the_loader_removes_the_short_answer_suffix_and_nothing_else(text, query):
    assert vqa_loader_query(text) == query


def test_science_removes_image_token_and_letter_suffix_but_keeps_context_and_choices():
    prompt = f"<image>\nContext: a map\nWhich state?\nA. Ohio\nB. Iowa{LETTER}"
    assert science_query(prompt) == "Context: a map\nWhich state?\nA. Ohio\nB. Iowa"


def test_mmbench_keeps_hint_question_and_options():
    assert mmbench_query("hint\nWhich?\nA. one\nB. two") == "hint\nWhich?\nA. one\nB. two"


def test_qbench_keeps_question_and_candidates():
    assert qbench_query("How sharp?", "A. very\nB. not\n") == "How sharp?\nA. very\nB. not\n"


def test_a_user_query_loses_its_image_placeholders():
    assert user_query("<image-placeholder>\nWhat is it?") == "What is it?"
    assert user_query("What is it?") == "What is it?"


def test_lmms_loses_image_tokens_and_both_instructions():
    short = "\nAnswer the question using a single word or phrase."
    letter = "\nAnswer with the option's letter from the given choices directly."
    assert lmms_query(f"<image> <image>\nWhich?{short}") == "Which?"
    assert lmms_query(f"Hint\nWhich?\nA. one{letter}") == "Hint\nWhich?\nA. one"


def test_placeholders_say_where_the_images_go():
    query = "Compare <image-placeholder> with <image-placeholder>."
    assert place_images(query, 2) == "Compare <image> with <image>."
    assert place_images("What is it?", 1) == "<image>\nWhat is it?"
    assert place_images("Compare.", 2) == "<image>\n<image>\nCompare."
    assert place_images("Is <image> a <image>?", 1) == "<image>\nIs  a ?"


class TestWithImages:
    def test_images_stand_where_the_question_says(self):
        assert with_images("Is <image> like <image>?", 2) == "Is <image> like <image>?"

    @pytest.mark.parametrize("text", ["Which?", "<image> Which?", "Which?<image><image><image>"])
    def test_images_stand_in_front_where_the_question_does_not_say(self, text):
        assert with_images(text, 2) == "<image> <image>\nWhich?"

    def test_a_question_without_images_shows_none(self):
        assert with_images("What does <image> mean?", 0).count("<image>") == 0
