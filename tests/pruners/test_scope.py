"""SCOPE: what [CLS] attends to covers first."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.bench import reference
from llava.pruners import VisualCues
from llava.pruners.scope import ScopePruner

from .conftest import FORMS


def on_circle(*degrees, attention=None):
    """Unit vectors at these angles, attended to alike unless said otherwise."""
    angles = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    tokens = torch.stack([angles.cos(), angles.sin()], dim=1).float().unsqueeze(0)
    given = torch.ones(len(degrees)) if attention is None else torch.tensor(attention)
    return VisualCues(tokens, None, cls_attention=given.unsqueeze(0))


def test_starts_in_the_middle_of_most_and_goes_where_nothing_is_covered():
    cues = on_circle(0, 20, 40, 180, 90)
    assert ScopePruner(1)(cues).tolist() == [[2]]  # 40 degrees is near to 0, 20 and 90
    assert ScopePruner(2)(cues).tolist() == [[2, 3]]  # of the opposite nothing is covered


def test_an_opposite_does_not_count_against_a_token():
    # Counted below 0, the tokens at 0 and 180 degrees would take from each other all that they add.
    cues = on_circle(0, 180, 90, 100)
    assert ScopePruner(1)(cues).tolist() == [[3]]
    assert ScopePruner(2)(cues).tolist() == [[0, 3]]


def test_attention_weighs_the_candidate_not_what_it_covers():
    cues = on_circle(0, 0, 90, attention=[0.1, 0.1, 0.3])
    assert ScopePruner(1)(cues).tolist() == [[2]]  # 0.3 * 1 against 0.1 * 2
    assert ScopePruner(1, alpha=0.5)(cues).tolist() == [[0]]  # 0.55 * 1 against 0.32 * 2
    assert ScopePruner(1, alpha=0)(cues).tolist() == [[0]]


def test_the_sum_of_both_adds_attention_of_sixteen_heads():
    gain, attention = [2.0, 2.0, 1.0], [0.01, 0.02, 0.08]
    cues = on_circle(0, 0, 90, attention=attention)
    scores = [g + 16 * a for g, a in zip(gain, attention, strict=True)]
    assert ScopePruner(1, combined="add")(cues).tolist() == [[scores.index(max(scores))]] == [[1]]
    assert ScopePruner(2, combined="add")(cues).tolist() == [[1, 2]]  # then 0.16 against 1 + 1.28


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf, -1.0])
@pytest.mark.parametrize("combined", ["multi", "add"])
def test_attention_that_is_no_share_counts_as_none(bad, combined):
    odd = on_circle(0, 30, 60, 200, attention=[0.2, bad, 0.1, 0.1])
    none = on_circle(0, 30, 60, 200, attention=[0.2, 0.0, 0.1, 0.1])
    for budget in (1, 2, 3):
        pruner = ScopePruner(budget, combined=combined)
        assert torch.equal(pruner(odd), pruner(none))


def test_a_factor_on_all_attention_changes_nothing(random_cues):
    cues = random_cues(seed=3, tiles=2, tokens=60, width=30)
    times = VisualCues(cues.features, None, cls_attention=16 * cues.cls_attention)  # the sum over sixteen heads
    assert torch.equal(ScopePruner(20)(times), ScopePruner(20)(cues))


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=40, deadline=None, derandomize=True)  # always the same: equals may round either way
@given(
    seed=st.integers(0, 2**32 - 1),
    tokens=st.integers(2, 90),
    share=st.floats(0, 0.7),
    alpha=st.sampled_from([0.5, 1.0, 2.0]),
)
def test_chooses_as_the_plain_rule(form, random_cues, seed, tokens, share, alpha):
    cues = random_cues(seed=seed, tiles=2, tokens=tokens, width=40)
    budget = max(1, int(share * tokens))
    exact = (cues.features.double(), cues.cls_attention.double())
    with FORMS[form]():
        assert torch.equal(ScopePruner(budget, alpha=alpha)(cues), reference.scope(*exact, budget, alpha))


@pytest.mark.parametrize("alpha", [-0.1, torch.nan, torch.inf, "1", True])
def test_names_an_alpha_out_of_range(alpha):
    with pytest.raises(ValueError, match="alpha must be a number, 0 or more"):
        ScopePruner(4, alpha=alpha)


def test_names_an_unknown_combination():
    with pytest.raises(ValueError, match="combined must be multi or add, not 'mul'"):
        ScopePruner(4, combined="mul")
