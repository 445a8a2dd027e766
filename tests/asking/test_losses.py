import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.asking.losses import LOSSES, count_losses, noted, told, without_placeholders


@pytest.mark.parametrize(
    ("text", "left", "removed"),
    [
        ("no placeholder, only <b>", "no placeholder, only <b>", 0),
        ("<image>\nWhat is <image>?", "\nWhat is ?", 2),
        ("<im<image>age>", "", 2),
        ("<vid<image>eo>", "", 2),
        ("<video>", "", 1),
    ],
)
def test_no_placeholder_is_left_and_all_are_counted(text, left, removed):
    assert without_placeholders(text, "<video>") == (left, removed)


@given(st.lists(st.sampled_from(["<image>", "<", "im", "age>", "<im", " "]), max_size=12).map("".join))
def test_whatever_comes_to_stand_side_by_side(text):
    left, removed = without_placeholders(text)
    assert "<image>" not in left and len(left) == len(text) - 7 * removed


def test_only_what_was_lost_is_noted():
    assert noted({"cut": 0, "placeholders": 2, "unfinished": False}) == {"placeholders": 2}


def test_answers_are_counted_by_what_they_lost():
    lines = [{"metadata": {"cut": 3, "unfinished": True, "tiles": 1}}, {"metadata": {"cut": 1}}, {"text": "old"}, {}]
    counts = count_losses(lines)
    assert counts == {"cut": 2, "unfinished": 1}
    line = told(counts)
    assert line.startswith("2 whose prompt lost its end") and "1 whose answer reached --max_new_tokens" in line
    assert told(count_losses([{"metadata": {"tiles": 1}}])) == ""
    assert all(f"({name})" in told({name: 1}) for name in LOSSES)
