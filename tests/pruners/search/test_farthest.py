"""The search for tokens far apart, by whichever of its sources the rows come from."""

import pytest
import torch

from llava.pruners.search import farthest, max_min, products

# Unit vectors whose cosines are multiples of a quarter: exact in float32, and often tied.
DIRECTIONS = torch.cat([torch.eye(4), torch.cartesian_prod(*[torch.tensor([-0.5, 0.5])] * 4)])


def plainly(tile, budget, weight=None, first=None):
    """The picks of one tile, written down as the method is published; equals go to the lower index."""
    weight = [1.0] * len(tile) if weight is None else weight.tolist()
    cosine = (tile @ tile.T).tolist()
    others = [[m for m in range(len(tile)) if m != n] for n in range(len(tile))]
    picks = [max(range(len(tile)), key=lambda n: (min(1 - cosine[n][m] for m in others[n]), -n))]
    picks = picks if first is None else [int(first)]
    while len(picks) < budget:
        left = [n for n in range(len(tile)) if n not in picks]
        picks.append(max(left, key=lambda n: (weight[n] * min(1 - cosine[n][m] for m in picks), -n)))
    return picks


@pytest.mark.parametrize("on_cpu", [True, False])
@pytest.mark.parametrize("largest", [products.LARGEST_GRAM, 4])
@pytest.mark.parametrize("budget", [1, 2, 9, 29])
def test_every_way_picks_in_the_order_of_the_plain_rule(budget, largest, on_cpu, monkeypatch):
    monkeypatch.setattr(products, "LARGEST_GRAM", largest)
    monkeypatch.setattr(farthest, "on_cpu", lambda _: on_cpu)
    drawn = torch.randint(len(DIRECTIONS), (3, 30), generator=torch.Generator().manual_seed(budget))
    tiles = DIRECTIONS[drawn]  # (3, 30, 4)
    assert max_min(tiles, budget).tolist() == [plainly(tile, budget) for tile in tiles]


@pytest.mark.parametrize("on_cpu", [True, False])
@pytest.mark.parametrize("largest", [products.LARGEST_GRAM, 4])
@pytest.mark.parametrize("begins", [True, False])
@pytest.mark.parametrize("budget", [1, 2, 9, 29])
def test_distances_count_by_weight_and_a_weight_of_zero_comes_last(budget, begins, largest, on_cpu, monkeypatch):
    monkeypatch.setattr(products, "LARGEST_GRAM", largest)
    monkeypatch.setattr(farthest, "on_cpu", lambda _: on_cpu)
    generator = torch.Generator().manual_seed(budget)
    tiles = DIRECTIONS[torch.randint(len(DIRECTIONS), (3, 30), generator=generator)]
    weight = torch.randint(5, (3, 30), generator=generator) / 4  # exact, often tied, often 0
    first = weight.argmax(dim=1, keepdim=True) if begins else None
    begin = first.tolist() if begins else [None] * 3
    expected = [plainly(*case) for case in zip(tiles, [budget] * 3, weight, [b and b[0] for b in begin], strict=True)]
    assert max_min(tiles, budget, weight, first).tolist() == expected
    assert budget < 9 or expected != [plainly(tile, budget) for tile in tiles]


def test_a_search_with_weights_is_one_operator_of_a_compiled_graph():
    distance = 1 - DIRECTIONS @ DIRECTIONS.T
    distance.fill_diagonal_(-torch.inf)
    first, weight = torch.tensor([[3]]), torch.rand(1, len(distance))
    torch.library.opcheck(torch.ops.llava.farthest_points.default, (distance.unsqueeze(0), first, 7, weight))
