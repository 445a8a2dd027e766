"""A budget split among tiles: by hand, and what holds of every split."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llava.selecting.split import quotas


@pytest.mark.parametrize(
    ("sums", "tokens", "budget", "expected"),
    [
        ([1.0, 1.0], 8, 6, [3, 3]),
        ([3.0, 1.0], 8, 8, [6, 2]),
        ([1.0, 1.0, 1.0], 8, 8, [3, 3, 2]),  # two are missing: the first tiles, all equally far below
        ([5.0, 3.0, 2.0], 9, 9, [4, 3, 2]),  # shares 4.5, 2.7, 1.8: floors 4, 2, 1, then the .8 and the .7
        ([98.0, 1.0, 1.0], 4, 6, [4, 1, 1]),  # no tile keeps more than it has, none less than one
        ([98.0, 1.0, 1.0], 4, 8, [4, 2, 2]),
        ([100.0, 1.0, 1.0, 1.0], 8, 4, [1, 1, 1, 1]),  # floor and one each would come to six
        ([0.0, 0.0], 8, 5, [3, 2]),
        ([float("nan"), 2.0], 8, 4, [1, 3]),
    ],
)
def test_by_hand(sums, tokens, budget, expected):
    importance = torch.zeros(len(sums), tokens)
    importance[:, 0] = torch.tensor(sums)
    assert quotas(importance, budget) == expected


@given(st.data())
def test_every_split_keeps_the_budget_and_the_bounds(data):
    tiles, tokens = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 40))
    budget = data.draw(st.integers(tiles, tiles * tokens))
    sums = data.draw(st.lists(st.floats(0, 1e6, width=32), min_size=tiles, max_size=tiles))
    importance = torch.zeros(tiles, tokens)
    importance[:, -1] = torch.tensor(sums)
    found = quotas(importance, budget)
    assert sum(found) == budget and all(1 <= quota <= tokens for quota in found)
    assert all(found[a] >= found[b] - 1 for a in range(tiles) for b in range(tiles) if sums[a] >= sums[b])


@pytest.mark.parametrize("budget", [1, 9, 0])
def test_a_budget_that_the_tiles_cannot_have_is_refused(budget):
    with pytest.raises(ValueError, match=f"{budget} tokens cannot be split among 2 tiles of 4"):
        quotas(torch.rand(2, 4), budget)
