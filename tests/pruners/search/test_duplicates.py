"""The removal of duplicates, by whichever of its sources the cosines come from."""

import pytest
import torch

from llava.pruners.search import duplicates, products, remove_duplicates


@pytest.mark.parametrize("on_cpu", [True, False])
@pytest.mark.parametrize("largest", [products.LARGEST_GRAM, 4])
def test_every_way_leaves_one_of_each_direction(largest, on_cpu, monkeypatch):
    monkeypatch.setattr(products, "LARGEST_GRAM", largest)
    monkeypatch.setattr(duplicates, "on_cpu", lambda _: on_cpu)
    # Each direction stands once at an even and once at an odd place, so that a round compares it with its equal.
    tokens = torch.eye(12).repeat_interleave(2, dim=0) * torch.arange(1, 25).unsqueeze(1)
    left = remove_duplicates(tokens.expand(2, 24, 12), 16)
    assert (left == left[:1]).all() and left.shape == (2, 16)
    assert sorted(left[0].tolist()) == [n for n in range(24) if n % 2 or n >= 16]


def test_what_is_no_number_resembles_nothing():
    tokens = torch.eye(8)[torch.tensor([0, 0, 1, 1, 2, 3])].unsqueeze(0)
    tokens[0, 0] = torch.nan
    assert remove_duplicates(tokens, 5).sort().values.tolist() == [[0, 1, 3, 4, 5]]
