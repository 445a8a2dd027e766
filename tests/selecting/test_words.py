import pytest
import torch

from llava.selecting.words import embed_words, keywords, strip_question, word_ids, words

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


class Letters:
    """Tokenises a word to its letters, behind a token that begins a text."""

    bos_token_id = 1

    def __call__(self, given, is_split_into_words, verbose):
        assert is_split_into_words and not verbose
        return {"input_ids": [1, *(ord(letter) for word in given for letter in word)]}


def test_ids_of_words_have_no_beginning():
    assert word_ids(Letters(), ["ab", "c"]) == [97, 98, 99]
    assert word_ids(Letters(), []) == []


def test_a_tokenizer_that_marks_no_beginning_loses_no_word():
    tokenizer = Letters()
    tokenizer.bos_token_id = None
    assert word_ids(tokenizer, ["a"]) == [1, 97]


@pytest.mark.parametrize(("multiple", "width"), [(1, 3), (2, 4), (8, 8)])
def test_words_are_embedded_in_rows_that_zeros_fill_up(multiple, width):
    table = torch.nn.Embedding(10, 4)
    found = embed_words([[3, 1, 2], [], [5]], table, torch.device("cpu"), multiple)
    assert found.shape == (3, width, 4) and not found.requires_grad
    assert torch.equal(found[0, :3], table.weight[[3, 1, 2]]) and torch.equal(found[2, 0], table.weight[5])
    assert not found[0, 3:].any() and not found[1].any() and not found[2, 1:].any()


def test_a_question_without_words_has_one_that_is_none():
    assert embed_words([[]], torch.nn.Embedding(10, 4), torch.device("cpu")).tolist() == [[[0.0] * 4]]
