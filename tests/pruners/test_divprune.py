"""DivPrune: tokens far apart, on geometry that can be checked in one's head."""

from itertools import combinations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.pruners import VisualCues
from llava.pruners.divprune import DivPrune


def tile(embeds):
    return VisualCues(features=None, embeds=embeds)


def on_circle(*degrees):
    """One tile of 2-D tokens at the given angles: cosine distance grows with the angle between two."""
    angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return tile(torch.stack([angle.cos(), angle.sin()], dim=-1).unsqueeze(0))


def spread(embeds, chosen):
    """The smallest distance between two chosen tokens on the unit sphere."""
    unit = embeds.double() / embeds.double().norm(dim=-1, keepdim=True)
    return min((unit[i] - unit[j]).norm().item() for i, j in combinations(chosen, 2))


def test_starts_from_the_most_isolated_token():
    assert DivPrune(1)(on_circle(0, 1, 2, 90, 180, 181)).tolist() == [[3]]


def test_goes_on_with_the_token_farthest_from_all_kept():
    assert DivPrune(2)(on_circle(0, 1, 80, 170, 171)).tolist() == [[2, 4]]
    assert DivPrune(3)(on_circle(0, 1, 80, 170, 171)).tolist() == [[0, 2, 4]]


def test_spreads_out_before_it_repeats_itself():
    (kept,) = DivPrune(3)(on_circle(0, 1, 2, 120, 121, 123, 240, 242, 245)).tolist()
    assert [index // 3 for index in kept] == [0, 1, 2]


def test_two_equally_isolated_tokens_start_from_the_lower_index():
    assert DivPrune(1)(on_circle(0, 1, 100, 140, 250, 251)).tolist() == [[2]]


def test_equal_tokens_are_taken_from_the_left():
    assert DivPrune(3)(tile(torch.ones(1, 5, 2))).tolist() == [[0, 1, 2]]


def test_every_token_can_be_kept_once_but_one():
    assert DivPrune(4)(on_circle(0, 90, 90, 90, 180)).tolist() == [[0, 1, 2, 4]]


@given(
    seed=st.integers(0, 2**32 - 1),
    budget=st.integers(1, 19),
    exponents=st.lists(st.integers(-12, 12), min_size=20, max_size=20),
)
def test_scaling_a_token_changes_nothing(random_cues, seed, budget, exponents):
    embeds = random_cues(seed=seed, tokens=20).embeds
    scaled = embeds * 2.0 ** torch.tensor(exponents).view(1, 20, 1)  # powers of two round nothing
    assert torch.equal(DivPrune(budget)(tile(scaled)), DivPrune(budget)(tile(embeds)))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), tokens=st.integers(3, 9), budget=st.integers(2, 5), width=st.integers(2, 4))
def test_spread_is_at_least_half_the_best_there_is(random_cues, seed, tokens, budget, width):
    embeds = random_cues(seed=seed, tokens=tokens, width=width).embeds
    budget = min(budget, tokens - 1)
    best = max(spread(embeds[0], chosen) for chosen in combinations(range(tokens), budget))
    assert spread(embeds[0], DivPrune(budget)(tile(embeds))[0].tolist()) >= best / 2 - 1e-3


def test_the_guarantee_holds_for_length_and_angle_but_not_for_one_minus_cosine():
    fan = on_circle(-30, -30, 0, 30, 30)
    kept = DivPrune(2)(fan)[0].tolist()
    assert kept == [0, 2]
    greedy, best = (spread(fan.embeds[0], chosen) ** 2 / 2 for chosen in (kept, [0, 4]))  # 1 - cosine
    assert best / 4 < greedy < best / 2
