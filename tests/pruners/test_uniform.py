"""The spatial stride, drawn as a picture."""

import pytest

from llava.pruners.uniform import UniformPruner


def picture(budget, tokens, cues):
    """A tile as rows of text, kept tokens as x."""
    kept = set(UniformPruner(budget)(cues)[0].tolist())
    side = int(tokens**0.5)
    return ["".join("x" if row * side + column in kept else "." for column in range(side)) for row in range(side)]


def test_a_square_number_stands_on_a_grid(random_cues):
    assert picture(4, 16, random_cues(tokens=16)) == ["....", ".x.x", "....", ".x.x"]
    assert picture(9, 36, random_cues(tokens=36)) == ["......", ".x.x.x", "......", ".x.x.x", "......", ".x.x.x"]


def test_a_single_token_stands_in_the_middle(random_cues):
    assert picture(1, 25, random_cues(tokens=25)) == [".....", ".....", "..x..", ".....", "....."]


def test_an_uneven_number_is_dealt_to_the_bands(random_cues):
    assert picture(5, 16, random_cues(tokens=16)) == ["....", ".x.x", "....", "x.xx"]


def test_a_sequence_that_is_no_square_has_even_steps(random_cues):
    assert UniformPruner(4)(random_cues(tokens=12)).tolist() == [[1, 4, 7, 10]]


@pytest.mark.parametrize("tokens", [1, 2, 9, 12, 16, 49, 64, 100, 576])
def test_every_budget_is_met_exactly(random_cues, tokens):
    cues = random_cues(tokens=tokens, width=1)
    for budget in range(tokens):
        keep = UniformPruner(budget)(cues)[0]
        assert len(set(keep.tolist())) == budget
        assert all(0 <= index < tokens for index in keep.tolist())


@pytest.mark.parametrize("budget", [16, 30, 64, 100, 200, 400])
def test_every_row_band_gets_its_share(random_cues, budget):
    keep = UniformPruner(budget)(random_cues(tokens=576, width=1))[0]
    bands = round(budget**0.5)
    rows, counts = (keep // 24).unique(return_counts=True)
    assert len(rows) == bands and counts.max() - counts.min() <= 1
