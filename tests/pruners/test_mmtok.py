"""MMTok: words and tokens are covered."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.bench import reference
from llava.pruners import VisualCues
from llava.pruners.mmtok import MMTok
from llava.pruners.words import WORDS_AT_ONCE, word_shares

from .conftest import FORMS

AXES = torch.eye(6).unsqueeze(0)

each_form = pytest.mark.parametrize("form", FORMS)


def with_words(words, **cues):
    """Six tokens that have nothing in common, and words in their space."""
    return VisualCues(AXES, AXES, text_tokens=torch.tensor(words, dtype=torch.float32).unsqueeze(0), **cues)


def test_each_word_takes_the_token_it_is_nearest_to():
    words = [[0, 0, 0, 0, 2.0, 0], [0, 0, 3.0, 0, 0, 0]]
    assert MMTok(2)(with_words(words)).tolist() == [[2, 4]]
    assert MMTok(3)(with_words(words)).tolist() == [[0, 2, 4]]  # then any covers one token, itself


def test_two_words_for_one_token_outweigh_one_for_another():
    assert MMTok(1)(with_words([[0, 0, 1.0, 0, 0, 0], [0, 0, 0, 0, 0, 1.0], [0, 0, 0, 0, 0, 2.0]])).tolist() == [[5]]


def test_words_read_the_projected_tokens_and_tokens_the_encoder_s():
    features = torch.tensor([[[1.0, 0], [1, 0], [1, 0], [0, 1]]])
    word = torch.tensor([[[0.0, 0, 1, 0]]])
    assert MMTok(2, alpha=0.1)(VisualCues(features, torch.eye(4)[None], text_tokens=word)).tolist() == [[2, 3]]
    assert MMTok(2)(VisualCues(features, torch.eye(4)[None])).tolist() == [[0, 3]]


def test_states_before_a_merger_are_read_where_there_are_any(random_cues):
    cues = random_cues(tiles=2, tokens=40, width=32)
    merged = dataclasses.replace(cues, features=cues.premerger, premerger=None)
    assert torch.equal(MMTok(9)(cues), MMTok(9)(merged))
    assert not torch.equal(MMTok(9)(cues), MMTok(9)(dataclasses.replace(cues, premerger=None)))


def test_alpha_weighs_tokens_against_words():
    clustered = torch.tensor([[[1.0, 0], [1, 0], [1, 0], [1, 0], [0, 1]]])
    word = torch.tensor([[[0.0, 0, 0, 0, 1]]])
    cues = VisualCues(clustered, torch.eye(5)[None], text_tokens=word)
    assert MMTok(1, alpha=0)(cues).tolist() == [[4]]
    assert MMTok(1, alpha=1000)(cues).tolist() == [[0]]


@each_form
def test_without_words_the_tokens_alone_count(form, random_cues):
    cues = dataclasses.replace(random_cues(tiles=2, tokens=40, width=32), padding=None)
    silent = dataclasses.replace(cues, text_tokens=None)
    zeros = dataclasses.replace(cues, text_tokens=torch.zeros(2, 3, 32))
    with FORMS[form]():
        assert torch.equal(MMTok(12)(zeros), MMTok(12)(silent))
        assert not torch.equal(MMTok(12)(cues), MMTok(12)(silent))


@each_form
def test_a_border_is_kept_last(form, random_cues):
    cues = random_cues(tiles=2, tokens=36, width=40, seed=4)
    border = torch.zeros(2, 36)
    border[:, :12] = 1
    border[1, 30:] = 1
    cues = dataclasses.replace(cues, padding=border, premerger=None)
    with FORMS[form]():
        few, all_free, beyond = (MMTok(budget)(cues) for budget in (10, 24, 30))
    assert (few >= 12).all() and (few[1] < 30).all()
    assert all_free[0].tolist() == list(range(12, 36))
    assert (beyond[0] < 12).sum() == 6 and (beyond[1] < 12).sum() + (beyond[1] >= 30).sum() == 12
    whole = dataclasses.replace(cues, padding=torch.ones(2, 36))
    nowhere = dataclasses.replace(cues, padding=None)
    with FORMS[form]():  # where all is border, it is chosen from like a picture
        assert torch.equal(MMTok(10)(whole), MMTok(10)(nowhere))


@each_form
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), words=st.integers(1, 40), more=st.integers(1, 60), tokens=st.integers(2, 70))
def test_words_that_fill_up_a_question_change_not_a_bit(form, random_cues, seed, words, more, tokens):
    generator = torch.Generator().manual_seed(seed)
    cues = random_cues(seed=seed, tiles=2, tokens=tokens, width=24)
    said = torch.randn(2, words, 24, generator=generator)
    filled = torch.cat([said, torch.zeros(2, more, 24)], dim=1)
    with FORMS[form]():
        shares = word_shares(said, cues.embeds, 0.02)
        assert torch.equal(word_shares(filled, cues.embeds, 0.02)[..., : shares.shape[2]], shares)
        pruner = MMTok(max(1, tokens // 3))
        keep = pruner(dataclasses.replace(cues, text_tokens=said))
        assert torch.equal(pruner(dataclasses.replace(cues, text_tokens=filled)), keep)


def test_a_word_spreads_one_in_all_and_one_of_zeros_nothing():
    tokens = torch.randn(1, 30, 12, generator=torch.Generator().manual_seed(0))
    words = torch.cat([tokens[:, 4:6], torch.zeros(1, 1, 12), tokens[:, 9:10]], dim=1)
    shares = word_shares(words, tokens, 0.02)
    assert shares.shape == (1, 30, WORDS_AT_ONCE)
    assert torch.allclose(shares.sum(dim=1)[0, :4], torch.tensor([1.0, 1, 0, 1]) / 3) and not shares[..., 4:].any()
    assert shares[0].argmax(dim=0)[[0, 1, 3]].tolist() == [4, 5, 9]


@each_form
@settings(max_examples=40, deadline=None, derandomize=True)  # always the same: equals may round either way
@given(seed=st.integers(0, 2**32 - 1), tokens=st.integers(2, 90), share=st.floats(0, 0.7), words=st.integers(1, 20))
def test_chooses_as_the_plain_rule(form, random_cues, seed, tokens, share, words):
    cues = random_cues(seed=seed, tiles=2, tokens=tokens, width=40)
    said = torch.randn(words, 40, generator=torch.Generator().manual_seed(seed))
    budget = max(1, int(share * tokens))
    cues = VisualCues(cues.features, cues.embeds, text_tokens=said.repeat(2, 1, 1))
    exact = (cues.features.double(), cues.embeds.double(), said.double())
    with FORMS[form]():
        assert torch.equal(MMTok(budget)(cues), reference.mmtok(*exact, budget))


@pytest.mark.parametrize("option", ["tau_tv", "tau_vv", "alpha"])
@pytest.mark.parametrize("value", [-0.1, torch.nan, torch.inf, "1", True, 1e7])
def test_names_an_option_out_of_range(option, value):
    with pytest.raises(ValueError, match=rf"{option} must be a number in \[.*, 1e\+06\]"):
        MMTok(4, **{option: value})


@pytest.mark.parametrize("tau", [1e-6, 1e6])
@each_form
def test_the_extreme_temperatures_choose_distinct_tokens(tau, form, random_cues):
    with FORMS[form]():
        assert (MMTok(9, tau_tv=tau, tau_vv=tau)(random_cues(tiles=2)).diff(dim=1) > 0).all()
