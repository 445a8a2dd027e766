"""CDPruner: what relevance does to a choice by diversity."""

import dataclasses
import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llava.pruners import PRUNERS, VisualCues
from llava.pruners.cdpruner import CDPruner


def cues(embeds, relevance, image_index=None):
    return VisualCues(features=None, embeds=embeds, relevance=relevance, image_index=image_index)


def right_angles(tokens):
    """One tile of tokens that all differ as much as the next."""
    return torch.eye(tokens).unsqueeze(0)


def brute_force(embeds, quality, budget):
    """Grow the set by whatever token gives the largest log-determinant; also the narrowest of these decisions."""
    unit = embeds.double() / embeds.double().norm(dim=-1, keepdim=True)
    kernel = quality.double().unsqueeze(1) * (unit @ unit.T) * quality.double()
    chosen, narrowest = [], math.inf
    for _ in range(budget):
        others = [n for n in range(len(embeds)) if n not in chosen]
        volumes = torch.stack([kernel[[*chosen, n]][:, [*chosen, n]].logdet() for n in others])
        if len(others) > 1:
            first, second = volumes.topk(2).values
            narrowest = min(narrowest, (first - second).item())
        chosen.append(others[volumes.argmax()])
    return sorted(chosen), narrowest


def normalised(relevance, theta):
    quality = (relevance - relevance.min() + 1e-6) / (relevance.max() - relevance.min())
    return quality if theta is None else (theta / (2 * (1 - theta)) * quality).exp()


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    tokens=st.integers(2, 9),
    budget=st.integers(1, 8),
    theta=st.sampled_from([None, 0, 0.3, 0.8]),
)
def test_equals_the_greedy_search_over_log_determinants(random_cues, seed, tokens, budget, theta):
    drawn = random_cues(seed=seed, tokens=tokens, width=12)
    budget = min(budget, tokens - 1)
    expected, narrowest = brute_force(drawn.embeds[0], normalised(drawn.relevance[0], theta), budget)
    assume(narrowest > 1e-3)
    assert CDPruner(budget, theta=theta)(drawn).tolist() == [expected]


def test_tokens_that_differ_alike_are_chosen_by_relevance():
    assert CDPruner(2)(cues(right_angles(4), torch.tensor([[0.1, 0.9, 0.2, 0.5]]))).tolist() == [[1, 3]]


def test_a_duplicate_of_a_chosen_token_is_left_out_however_relevant():
    embeds = torch.tensor([[[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 2.0]]])
    assert CDPruner(2)(cues(embeds, torch.tensor([[1.0, 0.9, 0.2, 0.1]]))).tolist() == [[0, 2]]


def test_a_narrow_range_of_relevance_counts_for_little():
    embeds = torch.tensor([[[1.0, 0.0], [0.9, 0.19**0.5], [0.0, 1.0]]])
    assert CDPruner(2)(cues(embeds, torch.tensor([[1e-2, 1e-2, 0.0]]))).tolist() == [[0, 1]]
    # Over a range of about 1e-6, the least relevant token still weighs half of the most relevant.
    assert CDPruner(2)(cues(embeds, torch.tensor([[1.1e-6, 1e-6, 0.0]]))).tolist() == [[0, 2]]


def test_theta_weighs_relevance_against_diversity():
    angle = torch.deg2rad(torch.tensor([0.0, 30.0, 90.0]))
    embeds = torch.stack([angle.cos(), angle.sin()], dim=-1).unsqueeze(0)
    relevance = torch.tensor([[1.0, 0.9, 0.0]])
    assert CDPruner(2, theta=0.1)(cues(embeds, relevance)).tolist() == [[0, 2]]
    assert CDPruner(2, theta=0.9)(cues(embeds, relevance)).tolist() == [[0, 1]]


def test_a_theta_close_to_one_leaves_relevance_alone():
    relevance = torch.tensor([[0.3, 0.1, 0.9, 0.2, 0.5]])
    assert CDPruner(3, theta=0.99)(cues(right_angles(5), relevance)).tolist() == [[0, 2, 4]]


@pytest.mark.parametrize("theta", [0.999, 0.9999999, 1 - 2**-53])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e30])
def test_the_least_relevant_keep_their_order_however_close_to_one_theta_is(random_cues, theta, scale):
    # Their weights would be zero in float32, and the lowest index would decide.
    relevance = torch.randperm(144, generator=torch.Generator().manual_seed(0)).unsqueeze(0) * scale / 144
    embeds = random_cues(tokens=144, width=160).embeds
    expected = relevance.argsort(descending=True)[:, :100].sort().values
    assert torch.equal(CDPruner(100, theta=theta)(cues(embeds, relevance)), expected)


@pytest.mark.parametrize("spoilt", [None, 0.25, torch.nan, torch.inf])
def test_relevance_that_says_nothing_leaves_diversity(random_cues, spoilt):
    drawn = random_cues()
    relevance = None if spoilt is None else torch.full((1, 16), spoilt)
    assert torch.equal(CDPruner(6)(dataclasses.replace(drawn, relevance=relevance)), CDPruner(6, theta=0)(drawn))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_one_bad_value_silences_the_relevance_of_its_image_and_of_no_other(random_cues, bad):
    drawn = random_cues(tiles=3, image_index=torch.tensor([5, 8, 5]))
    relevance = drawn.relevance.clone()
    relevance[2, 0] = bad
    keep, diverse = (CDPruner(6)(dataclasses.replace(drawn, relevance=r)) for r in (relevance, None))
    assert torch.equal(keep[[0, 2]], diverse[[0, 2]])
    assert torch.equal(keep[1], CDPruner(6)(drawn)[1])


def test_tiles_of_one_image_share_a_scale_and_images_do_not():
    embeds = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]).expand(2, 3, 2)
    relevance = torch.tensor([[1.0, 0.6, 0.5], [-1.0, -1.0, -1.0]])
    # On the scale of both tiles token 2 is worth 0.75; on that of its own tile it is the least relevant there is.
    assert CDPruner(2)(cues(embeds, relevance))[0].tolist() == [0, 2]
    assert CDPruner(2)(cues(embeds, relevance, torch.tensor([0, 1])))[0].tolist() == [0, 1]


def test_tokens_beyond_the_rank_are_filled_by_relevance():
    embeds = torch.tensor([[[1.0, 0.0]] * 4 + [[0.0, 1.0]]])
    relevance = torch.tensor([[0.2, 0.6, 0.9, 0.5, 0.3]])
    assert CDPruner(4)(cues(embeds, relevance)).tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize("theta", [-0.1, 1, 1.5, float("nan"), True, "0.5"])
def test_a_wrong_theta_is_named(theta):
    with pytest.raises(ValueError, match=r"theta must be None or a number in \[0, 1\)"):
        PRUNERS["cdpruner"](4, theta=theta)
