"""The greedy search, apart from where quality comes from."""

from itertools import product

import pytest
import torch

from llava.pruners.search import greedy_map


def test_starts_from_the_best_token_and_avoids_what_it_spans():
    degrees = torch.deg2rad(torch.tensor([0.0, 10.0, 80.0]))
    tokens = torch.stack([degrees.cos(), degrees.sin()], dim=-1).unsqueeze(0)
    assert sorted(greedy_map(tokens, torch.tensor([[1.0, 0.9, 0.8]]), 2)[0].tolist()) == [0, 2]


def test_equal_gains_go_to_the_lowest_index():
    assert greedy_map(torch.eye(5).unsqueeze(0), torch.ones(1, 5), 3).sort().values.tolist() == [[0, 1, 2]]


def test_matches_a_pivoted_cholesky_factorisation():
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randn(1, 60, 80, generator=generator)
    quality = torch.rand(1, 60, generator=generator) + 0.1
    scaled = (tokens / tokens.norm(dim=-1, keepdim=True) * quality.unsqueeze(2))[0].double()
    pivots = []
    for _ in range(59):
        pivots.append(scaled.norm(dim=1).argmax().item())
        axis = scaled[pivots[-1]] / scaled[pivots[-1]].norm()
        scaled = scaled - (scaled @ axis).unsqueeze(1) * axis
    for budget in (1, 2, 17, 40, 59):
        assert set(greedy_map(tokens, quality, budget)[0].tolist()) == set(pivots[:budget])


def test_tokens_without_any_direction_come_last():
    tokens = torch.eye(5)
    tokens[[0, 3]] = 0.0
    chosen = greedy_map(tokens.unsqueeze(0), torch.tensor([[0.9, 0.2, 0.2, 1.0, 0.2]]), 4)
    assert sorted(chosen[0].tolist()) == [1, 2, 3, 4]


@pytest.mark.parametrize("budget", [12, 35])
def test_a_tile_is_searched_as_if_alone_even_where_only_rounding_decides(budget):
    generator = torch.Generator().manual_seed(0)
    for tokens, width in product(range(49, 60), (13, 17, 30)):
        tiles = torch.randn(4, tokens, width, generator=generator)
        quality = torch.rand(4, tokens, generator=generator)
        alone = [greedy_map(tiles[i : i + 1], quality[i : i + 1], budget) for i in range(4)]
        assert torch.equal(greedy_map(tiles, quality, budget), torch.cat(alone))


@pytest.mark.parametrize("tokens", [75, 80, 200])
def test_any_number_of_equal_gains_goes_to_the_lowest_index(tokens):
    tile = torch.eye(tokens).unsqueeze(0)
    for budget in (1, tokens // 4, tokens // 3, tokens // 2, tokens - 1):
        chosen = greedy_map(tile, torch.ones(1, tokens), budget)
        assert chosen.sort().values.tolist() == [list(range(budget))]


@pytest.mark.parametrize("budget", [20, 40])
def test_what_the_chosen_tokens_span_is_filled_by_quality(budget):
    # Eight axes, and tokens along them: all but the longest on each axis lie in the span of the chosen ones.
    generator = torch.Generator().manual_seed(0)
    tile = torch.eye(8).repeat(12, 1).unsqueeze(0)
    quality = 2.0 ** -torch.randperm(96, generator=generator).unsqueeze(0).div(8, rounding_mode="floor")
    axis = torch.arange(96) % 8
    best = [max((n for n in range(96) if axis[n] == a), key=lambda n: (quality[0, n], -n)) for a in range(8)]
    rest = sorted(set(range(96)) - set(best), key=lambda n: (-quality[0, n], n))
    assert set(greedy_map(tile, quality, budget)[0].tolist()) == {*best, *rest[: budget - 8]}


@pytest.mark.parametrize("budget", [39, 40, 90])
@pytest.mark.parametrize(("kind", "rank"), [("few dimensions", 12), ("duplicates", 30)])
def test_rounding_does_not_pass_for_a_gain_beyond_the_rank(kind, rank, budget):
    generator = torch.Generator().manual_seed(1)
    basis = torch.randn(1, rank, 300, generator=generator)
    mix = torch.randn(1, 120, rank, generator=generator) if kind == "few dimensions" else torch.eye(rank).repeat(4, 1)
    quality = torch.rand(1, 120, generator=generator) + 0.1
    first = greedy_map(mix @ basis, quality, rank)[0].tolist()
    rest = sorted(set(range(120)) - set(first), key=lambda n: -quality[0, n])
    assert set(greedy_map(mix @ basis, quality, budget)[0].tolist()) == {*first, *rest[: budget - rank]}


def test_tiles_without_any_direction_are_filled_by_quality():
    quality = torch.rand(2, 50, generator=torch.Generator().manual_seed(2))
    for budget in (1, 16, 17, 49):
        expected = quality.argsort(dim=1, descending=True)[:, :budget]
        assert torch.equal(greedy_map(torch.zeros(2, 50, 16), quality, budget), expected)
