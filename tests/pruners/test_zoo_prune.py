"""ZOO-Prune: sensitive tokens that lie far apart."""

import pytest
import torch

from llava.pruners import VisualCues
from llava.pruners.zoo_prune import ZooPrune


def cues(embeds, sensitivity):
    return VisualCues(features=None, embeds=embeds, sensitivity=torch.as_tensor(sensitivity).float())


def test_tokens_at_right_angles_are_kept_by_sensitivity():
    sensitivity = [[0.2, 0.9, 0.1, 0.5, 0.7, 0.3]]
    order = torch.tensor(sensitivity).argsort(descending=True)
    for budget in range(1, 6):
        keep = ZooPrune(budget)(cues(torch.eye(6).unsqueeze(0), sensitivity))
        assert torch.equal(keep, order[:, :budget].sort().values)


def test_a_sensitive_token_beside_one_that_is_kept_gives_way_to_another():
    # the second is as sensitive as can be and the first's double; the third is neither
    embeds = torch.tensor([[[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [1.0, 1.0]]])
    assert ZooPrune(2)(cues(embeds, [[1.0, 0.99, 0.3, 0.0]])).tolist() == [[0, 2]]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("budget", [1, 2, 9, 29])
def test_it_is_the_plain_rule(seed, budget):
    generator = torch.Generator().manual_seed(seed)
    embeds, values = torch.randn(30, 20, generator=generator), torch.rand(30, generator=generator)
    unit = embeds.double() / embeds.double().norm(dim=1, keepdim=True)
    share = (values.double() - values.min()) / (values.max() - values.min())
    picks = [int(share.argmax())]
    while len(picks) < budget:
        promise = share * (1 - (unit @ unit[picks].T).amax(dim=1))
        promise[picks] = -torch.inf
        picks.append(int(promise.argmax()))
    assert ZooPrune(budget)(cues(embeds.unsqueeze(0), values.unsqueeze(0))).tolist() == [sorted(picks)]


def test_sensitivity_is_of_a_tile_and_its_unit_does_not_matter():
    generator = torch.Generator().manual_seed(7)
    embeds, values = torch.randn(2, 30, 20, generator=generator), torch.rand(2, 30, generator=generator)
    keep = ZooPrune(8)(cues(embeds, values))
    assert torch.equal(ZooPrune(8)(cues(embeds, values * torch.tensor([[1024.0], [2.0**-20]]))), keep)
    assert torch.equal(ZooPrune(8)(cues(embeds[1:], values[1:])), keep[1:])


def test_where_all_are_as_sensitive_tokens_far_apart_are_kept():
    # in the plane, at these degrees: from the first on, always the farthest
    angles = torch.tensor([0, 10, 20, 90, 180]).deg2rad()
    embeds = torch.stack([angles.cos(), angles.sin()], dim=1).unsqueeze(0)
    assert ZooPrune(3)(cues(embeds, [[0.4] * 5])).tolist() == [[0, 3, 4]]


def test_it_says_how_the_sensitivity_is_made():
    assert ZooPrune(8).asks("sensitivity") == {"directions": 64, "h": 0.01, "seed": 0}
    other = ZooPrune(8, directions=8, h=0.1, seed=3)
    assert other.asks("sensitivity") == {"directions": 8, "h": 0.1, "seed": 3} and other.asks("embeds") == {}


@pytest.mark.parametrize(
    ("option", "values"),
    [("directions", [0, -1, 1.5, True, "8"]), ("h", [0, -0.1, float("inf"), float("nan"), "x"]), ("seed", [-1, 2**63])],
)
def test_an_option_out_of_range_is_refused(option, values):
    for value in values:
        with pytest.raises(ValueError, match=f"{option} must be"):
            ZooPrune(8, **{option: value})
