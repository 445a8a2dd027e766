"""HiPrune: anchors, what is beside them, and the rest."""

import pytest
import torch

from llava.pruners import VisualCues
from llava.pruners.hiprune import HiPrune


def cues(objects, deep, grid=None):
    given = {"object_attention": torch.as_tensor(objects).float(), "deep_attention": torch.as_tensor(deep).float()}
    return VisualCues(features=None, embeds=None, **given, grid=grid)


def drawn(seed, tokens, tiles=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(tiles, tokens, generator=generator) for _ in range(2)]


def plainly(objects, deep, budget, alpha, columns):
    """The rule of one tile."""
    tokens = range(len(objects))
    anchors = sorted(tokens, key=lambda n: -objects[n])[: round(budget * alpha / 5)]
    beside = {min(max(n + step, 0), len(objects) - 1) for n in anchors for step in (-1, 1, -columns, columns)} - {
        *anchors
    }
    kept = anchors + sorted(beside, key=lambda n: (-objects[n], n))
    kept += sorted(set(tokens) - {*kept}, key=lambda n: (-deep[n], n))
    return sorted(kept[:budget])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize(("tokens", "grid"), [(144, None), (144, (9, 16)), (60, (5, 12)), (7, (7, 1)), (7, (1, 7))])
def test_it_is_the_plain_rule(tokens, grid, alpha, seed):
    objects, deep = drawn(seed, tokens, tiles=2)
    for budget in {1, 4, tokens // 3, tokens - 1}:
        keep = HiPrune(budget, alpha=alpha)(cues(objects, deep, grid))
        columns = grid[1] if grid else 12
        expected = [plainly(*tile, budget, alpha, columns) for tile in zip(objects, deep, strict=True)]
        assert keep.tolist() == expected


def test_an_anchor_is_kept_with_its_neighbours_and_the_rest_is_of_the_deep_block():
    objects, deep = torch.zeros(1, 25), torch.arange(25.0).unsqueeze(0)
    objects[0, 12] = 1
    assert HiPrune(7, alpha=0.7)(cues(objects, deep)).tolist() == [[7, 11, 12, 13, 17, 23, 24]]


def test_neighbours_at_the_ends_are_those_of_the_release():
    objects, deep = torch.zeros(1, 25), torch.zeros(1, 25)
    objects[0, 9] = 1  # the end of the second row: beside it stands the first of the third
    deep[0, 20:] = 1
    assert HiPrune(6, alpha=0.8)(cues(objects, deep)).tolist() == [[4, 8, 9, 10, 14, 20]]
    objects[0, 2] = 2  # of the first row: above it would be the first token
    assert HiPrune(5, alpha=1.0)(cues(objects, deep)).tolist() == [[0, 1, 2, 3, 7]]


def test_where_neighbours_are_too_many_those_that_the_middle_block_looks_at_stay():
    # 25 anchors of 125 kept want up to 100 neighbours: with a budget of 4 one anchor has 4
    objects, deep = torch.zeros(1, 25), torch.ones(1, 25)
    objects[0, [12, 17, 13, 11, 7]] = torch.tensor([9.0, 4.0, 3.0, 2.0, 1.0])
    assert HiPrune(4, alpha=1.0)(cues(objects, deep)).tolist() == [[11, 12, 13, 17]]


def test_a_row_is_as_wide_as_the_grid_and_without_one_as_the_root():
    objects, deep = torch.zeros(1, 36), torch.arange(36.0).unsqueeze(0)
    objects[0, 14] = 1
    assert HiPrune(5, alpha=1.0)(cues(objects, deep)).tolist() == [[8, 13, 14, 15, 20]]
    assert HiPrune(5, alpha=1.0)(cues(objects, deep, (3, 12))).tolist() == [[2, 13, 14, 15, 26]]
    assert HiPrune(5, alpha=1.0)(cues(objects, deep, (9, 4))).tolist() == [[10, 13, 14, 15, 18]]


def test_what_is_no_square_needs_a_grid():
    objects, deep = drawn(0, 60)
    with pytest.raises(ValueError, match="60 are no square, give a grid"):
        HiPrune(8)(cues(objects, deep))
    assert HiPrune(8)(cues(objects, deep, (6, 10))).shape == (1, 8)


def test_it_says_which_block_it_looks_at():
    assert HiPrune(8).asks("object_attention") == {"layer": 9} and HiPrune(8).asks("deep_attention") == {}
    assert HiPrune(8, object_layer=4).asks("object_attention") == {"layer": 4}


@pytest.mark.parametrize(
    ("option", "values"), [("alpha", [-0.1, 1.1, float("nan"), "x", True]), ("object_layer", [0, -1, 9.0, True])]
)
def test_an_option_out_of_range_is_refused(option, values):
    for value in values:
        with pytest.raises(ValueError, match=f"{option} must be"):
            HiPrune(8, **{option: value})
