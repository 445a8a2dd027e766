import pytest

from llava.eval.tasks.choices import chosen_option

OPTIONS = {"A": "Bright", "B": "Very bright", "C": "None", "D": "3.5"}


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        (" B ", "B"),
        ("B.", "B"),
        ("(B)", "B"),
        ("The answer is B: very bright", "B"),
        ("答案是C。", "C"),
        ("none", "C"),
        ("it is 3.5 metres", "D"),
        ("Very bright.", "B"),
        ("It is bright", "A"),
        ("Option B; it is dark.", "B"),
        ("B/", "B"),
        ("'B'", "B"),
        ("It's C", "C"),
        ("a C-clamp that is bright", "A"),
    ],
)
def test_an_answer_that_means_one_option_is_read(text, letter):
    assert chosen_option(text, OPTIONS) == letter


@pytest.mark.parametrize("text", ["", "A or B", "b", "dark", "It is very bright", "bright, or none"])
def test_an_answer_that_means_no_option_or_several_is_not(text):
    assert chosen_option(text, OPTIONS) is None


def test_a_letter_is_itself_even_where_it_is_the_text_of_another_option():
    assert chosen_option("B", {"A": "B", "B": "A"}) == "B"
    assert chosen_option("A dog", {"A": "A cat", "B": "A dog"}) == "A"


def test_a_letter_that_no_option_has_is_read_as_text():
    assert chosen_option("D", {"A": "yes", "B": "no"}) is None
    assert chosen_option("E", {"A": "E", "B": "F"}) == "A"
    assert chosen_option("It says E.", {"A": "E", "B": "F"}) == "A"


def test_an_option_of_dots_is_in_no_answer():
    assert chosen_option("", {"A": "...", "B": "x"}) is None
    assert chosen_option("it is x", {"A": "...", "B": "x"}) == "B"
