"""The table of texts for the text tower, one row per program that asks questions."""

import pytest

from llava.asking.queries import (
    lmms_query,
    mmbench_query,
    qbench_query,
    science_query,
    user_query,
    vqa_loader_query,
    vqa_query,
)

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
