import pytest

from llava.selecting.words import keywords, strip_question, words

SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."


@pytest.mark.parametrize(
    ("question", "stripped"),
    [
        ("What is this?", "What is this?"),
        ("<image>\nWhat is this?", "What is this?"),
        ("<image>\n<image>\nWhat?", "<image>\nWhat?"),
        ("<image> <image>\nWhich one?\nA. left", "Which one?\nA. left"),
        ("<image> What is this?", "<image> What is this?"),
        ("<image> foo\nWhat is this?", "<image> foo\nWhat is this?"),
        ("<image> <image>", "<image> <image>"),
        ("<image>\n", ""),
        ("", "What do you see in this image?"),
        (None, "What do you see in this image?"),
    ],
)
def test_placeholders_in_front_of_a_question_are_no_part_of_it(question, stripped):
    assert strip_question(question) == stripped


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Is the man's red-haired dog in front?", "man s red haired dog in front"),
        ("WHERE IS The_Sign 3.5?", "The_Sign 3 5"),
        ("Une tête d'âne", "Une tête d âne"),
        ("What is it?", "What is it?"),
        (f"Who are you?\n{SHORT}", "Who are you?\n"),
        (f"Which?\nA. cat\nB. dog\n{LETTER}", "cat B dog"),
        (f"{SHORT}\n{SHORT}", "\n"),
        (SHORT, ""),
        ("", ""),
    ],
)
def test_common_words_and_instructions_are_left_out_unless_nothing_else_is_there(text, left):
    assert keywords(text) == left


def test_words_are_what_is_tokenised():
    assert words(f"<image>\nWhat color is the man's shirt?\n{SHORT}") == ["color", "man", "s", "shirt"]
    assert words("What is it?") == ["What", "is", "it?"]
    assert words("") == words(None) == ["see", "in", "this", "image"]
    assert words("<image>\n") == words(SHORT) == []
