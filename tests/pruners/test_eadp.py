"""EADP: what matters to the question is covered."""

import dataclasses
from math import exp

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.bench import reference
from llava.pruners import VisualCues
from llava.pruners.eadp import EADP, importance
from llava.pruners.functional import smoothed
from llava.pruners.words import relevance_to_words

from .conftest import FORMS

each_form = pytest.mark.parametrize("form", FORMS)


def on_axes(relevance, **cues):
    """Tokens that have nothing in common, of this relevance (B, N) to the question as a whole."""
    relevance = torch.tensor(relevance)
    return VisualCues(None, torch.eye(relevance.shape[1]).repeat(len(relevance), 1, 1), relevance=relevance, **cues)


def test_what_matters_is_kept_first():
    assert EADP(2)(on_axes([[0.1, 0.3, 0.2, 0.9, 0.5]])).tolist() == [[3, 4]]  # 5 tokens are no square: not smoothed


def test_importance_is_of_what_is_covered_not_of_the_candidate():
    angles = torch.deg2rad(torch.tensor([0.0, 45.0, 90.0]))
    embeds = torch.stack([angles.cos(), angles.sin()], dim=1).unsqueeze(0)
    cues = VisualCues(None, embeds, relevance=torch.tensor([[1.0, 0.0, 1.0]]))
    assert EADP(1)(cues).tolist() == [[1]]  # without importance itself, it lies between two that matter


def test_a_cosine_below_zero_still_covers():
    embeds = torch.tensor([[[1.0, 0], [-1, 0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]]])
    cues = VisualCues(None, embeds, relevance=torch.tensor([[1.0, 0.0, 0.0, 0.0]]), grid=(4, 1))
    worth = importance(cues, 0.5, 2.0)[0]
    gain = ((embeds[0] @ embeds[0].T + 1) / 2 * worth).sum(dim=1)
    assert EADP(1, beta=2.0)(cues).tolist() == [[gain.argmax().item()]]


def test_importance_goes_from_lowest_to_highest_over_an_image():
    cues = on_axes([[0.0, 1.0, 2.0], [4.0, 4.0, 3.0]], image_index=torch.tensor([5, 5]))
    apart = dataclasses.replace(cues, image_index=torch.tensor([5, 6]))
    assert torch.allclose(importance(cues, 0.5, 1.0), torch.tensor([[0, 0.25, 0.5], [1, 1, 0.75]]), atol=1e-5)
    assert torch.allclose(importance(apart, 0.5, 1.0), torch.tensor([[0, 0.5, 1], [1, 1, 0.0]]), atol=1e-5)
    assert torch.allclose(importance(cues, 0.5, 2.0), importance(cues, 0.5, 1.0) ** 2)
    assert torch.equal(importance(cues, 0.5, 0.0), torch.ones(2, 3))


@pytest.mark.parametrize("relevance", [0.3, torch.nan, torch.inf])
def test_what_says_nothing_of_an_image_leaves_all_alike(relevance, random_cues):
    cues = random_cues(tiles=2, tokens=16)
    cues.relevance[1] = relevance
    cues = dataclasses.replace(cues, image_index=torch.tensor([0, 1]), joint_embeds=None)
    assert torch.equal(importance(cues, 0.5, 1.0)[1], torch.ones(16))
    assert importance(cues, 0.5, 1.0)[0].std() > 0.05
    without = dataclasses.replace(cues, relevance=None)
    assert torch.equal(EADP(5)(cues)[1], EADP(5)(without)[1])


def test_the_grid_is_smoothed_and_mirrored_at_its_border():
    side = exp(-0.5)
    total = (1 + 2 * side) ** 2
    values = torch.zeros(1, 3, 4)
    values[0, 1, 1] = total
    middle = torch.tensor([2 * side, 1.0, side, 0.0])  # what is left of the border is what is right of it
    expected = torch.stack([2 * side * middle, middle, 2 * side * middle])
    found = smoothed(values.flatten(1), (3, 4)).view(3, 4)
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(smoothed(torch.ones(2, 12), (3, 4)), torch.ones(2, 12))


def test_without_a_grid_a_square_is_one_and_other_numbers_stay():
    values = torch.rand(2, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(smoothed(values, None), smoothed(values, (4, 4)))
    assert not torch.equal(smoothed(values, (2, 8)), smoothed(values, (4, 4)))
    assert torch.equal(smoothed(values[:, :15], None), values[:, :15])
    row = smoothed(values, (1, 16))
    assert torch.allclose(row[:, 1], (values[:, 1] + exp(-0.5) * (values[:, 0] + values[:, 2])) / (1 + 2 * exp(-0.5)))
    assert torch.equal(row, smoothed(values, (16, 1)))


def test_the_position_that_points_at_fewest_patches_is_listened_to():
    patches = torch.eye(8).unsqueeze(0)
    pointing, vague = -torch.eye(8)[3], torch.ones(8)  # CLIP's cosine of what matters is the lower one
    text = torch.stack([vague, vague, pointing, vague, vague]).view(1, 1, 5, 8)
    relevance = relevance_to_words(patches, text)
    assert relevance[0].argmax() == 3 and torch.allclose(relevance[0], torch.eye(8)[3])
    many = torch.cat([text, text.flip(2)], dim=2)  # the two that point at fewest of ten
    assert torch.allclose(relevance_to_words(patches, many), relevance)


def test_several_texts_count_by_their_mean_and_one_of_zeros_is_none():
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(2, 20, 12, generator=generator)
    texts = torch.randn(2, 2, 11, 12, generator=generator)
    first, second = (relevance_to_words(patches, texts[:, number : number + 1]) for number in (0, 1))
    assert torch.allclose(relevance_to_words(patches, texts), (first + second) / 2, atol=1e-6)
    filled = torch.cat([texts[:, :1], torch.zeros(2, 3, 11, 12)], dim=1)
    assert torch.equal(relevance_to_words(patches, filled), first)
    assert not relevance_to_words(patches, torch.zeros(2, 1, 11, 12)).any()


@each_form
def test_texts_that_fill_up_a_batch_change_not_a_bit(form, random_cues):
    for seed, tokens in enumerate((16, 40, 144)):
        cues = random_cues(seed=seed, tiles=2, tokens=tokens)
        zeros = torch.zeros_like(cues.text_sequence)
        filled = dataclasses.replace(cues, text_sequence=torch.cat([cues.text_sequence, zeros, zeros], dim=1))
        with FORMS[form]():
            assert torch.equal(importance(filled, 0.5, 1.0), importance(cues, 0.5, 1.0))
            assert torch.equal(EADP(9)(filled), EADP(9)(cues))


def test_alpha_weighs_the_question_against_its_words(random_cues):
    cues = random_cues(tiles=2, tokens=16)
    whole = dataclasses.replace(cues, text_sequence=None)
    assert torch.equal(importance(cues, 1.0, 1.0), importance(whole, 0.3, 1.0))
    words = dataclasses.replace(cues, relevance=None)
    assert torch.equal(importance(cues, 0.0, 1.0), importance(words, 0.3, 1.0))
    other = dataclasses.replace(cues, relevance=cues.relevance.flip(1))
    assert torch.allclose(importance(cues, 0.0, 1.0), importance(other, 0.0, 1.0))
    assert not torch.allclose(importance(cues, 0.5, 1.0), importance(other, 0.5, 1.0))


@each_form
@settings(max_examples=40, deadline=None, derandomize=True)  # always the same: equals may round either way
@given(
    seed=st.integers(0, 2**32 - 1),
    side=st.integers(2, 9),
    share=st.floats(0, 0.7),
    segments=st.integers(1, 2),
    beta=st.sampled_from([1.0, 2.0]),
)
def test_chooses_as_the_plain_rule(form, random_cues, seed, side, share, segments, beta):
    cues = random_cues(seed=seed, tiles=2, tokens=side**2, width=40)
    texts = torch.randn(segments, 10, 40, generator=torch.Generator().manual_seed(seed))
    cues = dataclasses.replace(cues, text_sequence=texts.repeat(2, 1, 1, 1), grid=None)
    budget = max(1, int(share * side**2))
    exact = [cue.double() for cue in (cues.embeds, cues.relevance, cues.joint_embeds, texts)]
    with FORMS[form]():
        assert torch.equal(EADP(budget, beta=beta)(cues), reference.eadp(*exact, budget, beta=beta))


@pytest.mark.parametrize("alpha", [-0.1, 1.1, torch.nan, "1", True])
def test_names_an_alpha_out_of_range(alpha):
    with pytest.raises(ValueError, match=r"alpha must be a number in \[0, 1\]"):
        EADP(4, alpha=alpha)


@pytest.mark.parametrize("beta", [-1, torch.nan, torch.inf, None])
def test_names_a_beta_out_of_range(beta):
    with pytest.raises(ValueError, match="beta must be a number, 0 or more"):
        EADP(4, beta=beta)
