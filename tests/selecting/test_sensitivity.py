"""The sensitivity of a projector: a derivative that is what differences come to, of weights that are left alone."""

import copy

import pytest
import torch
from torch import nn

from llava.selecting import sensitivity as module
from llava.selecting.sensitivity import in_float32, random_directions, sensitivity


def projector(width=24, wide=40, dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(width, wide), nn.GELU(), nn.Linear(wide, wide)).to(dtype)


def features(tiles=2, tokens=30, width=24, seed=1):
    return torch.randn(tiles, tokens, width, generator=torch.Generator().manual_seed(seed))


def differences(project, rows, directions, h):
    """The rule as it is published, in float64."""
    project = copy.deepcopy(project).double()
    rows, directions = rows.double(), directions.double()
    moved = [(project(rows + h * u) - project(rows - h * u)).norm(dim=-1) / (2 * h) for u in directions]
    return torch.stack(moved).mean(dim=0)


@pytest.mark.parametrize("h", [1e-4, 0.01, 0.5])
def test_it_is_what_differences_come_to(h):
    directions = random_directions(20, 24, seed=0)
    found = sensitivity(projector(), features(), directions, h)
    expected = differences(projector(), features(), directions, h)
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), expected, rtol=1e-5)
    assert h == 0.5 or not torch.allclose(
        found.double(), differences(projector(), features(), directions, 0.5), rtol=1e-4
    )


def test_of_a_linear_map_it_is_the_mean_length_of_what_the_directions_become():
    linear, directions = nn.Linear(24, 9), random_directions(5, 24, seed=3)
    expected = (directions @ linear.weight.T).norm(dim=1).mean().expand(2, 30)
    assert torch.allclose(sensitivity(linear, features(), directions), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_of_half_precision_is_computed_in_float32_and_left_as_it_is(dtype):
    project, directions = projector(dtype=dtype), random_directions(8, 24, seed=0)
    before = {name: value.clone() for name, value in project.state_dict().items()}
    seen = []
    project.register_forward_hook(lambda *_: seen.append(1))
    project[0].register_forward_hook(lambda *_: seen.append(1))
    found = sensitivity(project, features().to(dtype), directions)
    expected = differences(project, features().to(dtype), directions, 0.01)
    assert torch.allclose(found.double(), expected, rtol=1e-5)
    assert all(
        value.dtype == dtype and torch.equal(value, before[name]) for name, value in project.state_dict().items()
    )
    assert len(seen) == 2 * 2 * len(directions)  # of the differences alone: a hook of the model's hears nothing
    project(features().to(dtype))
    assert seen[-2:] == [1, 1] and not found.requires_grad


def test_the_copy_is_another_module_with_the_rest_of_it_in_common():
    project = projector(dtype=torch.float16)
    project[1].marked = torch.arange(3)
    twin = in_float32(project)
    assert twin is not project and twin[0] is not project[0] and twin[1].marked is project[1].marked
    assert {value.dtype for value in twin.state_dict().values()} == {torch.float32}


def test_a_projector_that_is_no_module_will_do_and_autocast_does_not_reach_it():
    project, directions = projector(), random_directions(8, 24, seed=0)
    expected = sensitivity(project, features(), directions)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(sensitivity(lambda rows: project(rows), features(), directions), expected)


def test_a_tile_alone_has_the_values_that_it_has_beside_others(monkeypatch):
    directions = random_directions(11, 24, seed=0)
    together = sensitivity(projector(), features(tiles=3), directions)
    alone = [sensitivity(projector(), tile.unsqueeze(0), directions)[0] for tile in features(tiles=3)]
    assert torch.equal(together, torch.stack(alone))
    monkeypatch.setattr(module, "TOKENS_AT_ONCE", 7)
    monkeypatch.setattr(module, "DIRECTIONS_AT_ONCE", 3)
    assert torch.allclose(sensitivity(projector(), features(tiles=3), directions), together, rtol=1e-5)


def test_entries_that_are_no_numbers_count_as_zero():
    rows = features()
    rows[0, 3, 5], rows[1, 2, :] = torch.nan, torch.inf
    zeros = rows.nan_to_num(nan=0.0, posinf=0.0)
    directions = random_directions(4, 24, seed=0)
    assert torch.equal(sensitivity(projector(), rows, directions), sensitivity(projector(), zeros, directions))


def test_what_does_not_take_tokens_one_by_one_is_refused():
    with pytest.raises(ValueError, match="does not take tokens one by one"):
        sensitivity(lambda rows: rows[::2], features(), random_directions(4, 24, seed=0))


def test_nothing_is_read_back():
    project = projector().to("meta")
    found = sensitivity(project, features().to("meta"), random_directions(4, 24, seed=0))
    assert found.device.type == "meta" and found.shape == (2, 30)


def test_directions_are_of_unit_length_and_follow_the_seed():
    first = random_directions(64, 1024, seed=0)
    assert first.shape == (64, 1024) and torch.allclose(first.norm(dim=1), torch.ones(64))
    assert torch.equal(first, random_directions(64, 1024, seed=0))
    assert not torch.equal(first, random_directions(64, 1024, seed=1))
    assert (first @ first.T).fill_diagonal_(0).abs().max() < 0.2
