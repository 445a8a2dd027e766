"""The search for tokens far apart, by whichever of its sources the rows come from."""

import pytest
import torch

from llava.pruners.search import farthest, max_min, products

# Unit vectors whose cosines are multiples of a quarter: exact in float32, and often tied.
DIRECTIONS = torch.cat([torch.eye(4), torch.cartesian_prod(*[torch.tensor([-0.5, 0.5])] * 4)])


def plainly(tile, budget):
    """The picks of one tile, written down as the method is published; equals go to the lower index."""
    cosine = (tile @ tile.T).tolist()
    others = [[m for m in range(len(tile)) if m != n] for n in range(len(tile))]
    picks = [max(range(len(tile)), key=lambda n: (min(1 - cosine[n][m] for m in others[n]), -n))]
    while len(picks) < budget:
        left = [n for n in range(len(tile)) if n not in picks]
        picks.append(max(left, key=lambda n: (min(1 - cosine[n][m] for m in picks), -n)))
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
