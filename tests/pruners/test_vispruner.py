"""VisPruner: attention first, then removal of duplicates round by round."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.pruners import PRUNERS, VisualCues
from llava.pruners.vispruner import VisPruner

# Unit vectors whose cosines are multiples of a quarter: exact in float32, and often tied.
DIRECTIONS = torch.cat([torch.eye(4), torch.cartesian_prod(*[torch.tensor([-0.5, 0.5])] * 4)]).tolist()


def cues(features, attention):
    return VisualCues(features=torch.tensor([features]), embeds=None, cls_attention=torch.tensor([attention]))


def oracle(features, attention, budget, important_ratio):
    """The method as its release writes it down, on lists; sorted() keeps the order of equal values."""
    ranked = sorted(range(len(features)), key=lambda n: -attention[n])
    important, pool = ranked[: int(budget * important_ratio)], ranked[int(budget * important_ratio) :]
    diverse = budget - len(important)
    while diverse and len(pool) > diverse:
        first, second = pool[0::2], pool[1::2]

        def duplication(n, others=second):
            return max(sum(a * b for a, b in zip(features[n], features[m], strict=True)) for m in others)

        removed = min(8, len(pool) - diverse, len(first))
        pool = sorted(first, key=lambda n: -duplication(n))[removed:] + second
    return sorted(important + pool * bool(diverse))


@settings(max_examples=150, deadline=None)
@given(
    directions=st.lists(st.sampled_from(range(len(DIRECTIONS))), min_size=2, max_size=45),
    attention=st.lists(st.integers(0, 20), min_size=45, max_size=45),
    share=st.floats(0.01, 0.99),
    important_ratio=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
)
def test_equals_the_method_written_down_on_lists(directions, attention, share, important_ratio):
    features = [DIRECTIONS[index] for index in directions]
    attention = [float(a) for a in attention[: len(features)]]
    budget = max(1, int(share * len(features)))
    keep = VisPruner(budget, important_ratio=important_ratio)(cues(features, attention))
    assert keep.tolist() == [oracle(features, attention, budget, important_ratio)]


def test_many_equal_scores_keep_their_order():
    generator = torch.Generator().manual_seed(0)
    features = [DIRECTIONS[index] for index in torch.randint(len(DIRECTIONS), (200,), generator=generator)]
    attention = torch.randint(9, (200,), generator=generator).tolist()
    keep = VisPruner(60)(cues(features, [float(a) for a in attention]))
    assert keep.tolist() == [oracle(features, attention, 60, 0.5)]


def test_the_duplicate_of_another_token_goes_first():
    features = [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    # In this order of attention, tokens 0 and 2 are compared with tokens 1 and 3.
    assert VisPruner(3, important_ratio=0.0)(cues(features, [0.4, 0.3, 0.2, 0.1])).tolist() == [[1, 2, 3]]


def test_the_important_share_is_rounded_down():
    features = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
    # int(3 * 0.5) = 1: token 0 by attention; of 1, 2, 3 the duplicate 1 is removed.
    assert VisPruner(3, important_ratio=0.5)(cues(features, [0.4, 0.3, 0.2, 0.1])).tolist() == [[0, 2, 3]]


@pytest.mark.parametrize("budget", range(1, 25))
def test_attention_alone_when_all_is_important(random_cues, budget):
    drawn = random_cues(tiles=2, tokens=25)
    assert torch.equal(VisPruner(budget, important_ratio=1)(drawn), PRUNERS["cls_topk"](budget)(drawn))


@pytest.mark.parametrize("important_ratio", [0.0, 0.3, 0.5, 0.9])
def test_the_most_attended_tokens_are_always_kept(random_cues, important_ratio):
    drawn = random_cues(tiles=2, tokens=25)
    for budget in range(1, 25):
        keep = VisPruner(budget, important_ratio=important_ratio)(drawn)
        for row, attention in zip(keep, drawn.cls_attention, strict=True):
            assert set(attention.topk(int(budget * important_ratio)).indices.tolist()) <= set(row.tolist())


@pytest.mark.parametrize("odd", [torch.nan, torch.inf, -torch.inf])
def test_attention_that_is_not_finite_ranks_lowest(random_cues, odd):
    drawn = random_cues()
    attention = drawn.cls_attention.clone()
    attention[0, 3] = odd
    lowest = drawn.cls_attention.clone()
    lowest[0, 3] = -1.0
    keep, expected = (VisPruner(6)(dataclasses.replace(drawn, cls_attention=a)) for a in (attention, lowest))
    assert torch.equal(keep, expected)


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan"), True, "0.5", None])
def test_a_wrong_important_ratio_is_named(ratio):
    with pytest.raises(ValueError, match=r"important_ratio must be a number in \[0, 1\]"):
        PRUNERS["vispruner"](4, important_ratio=ratio)
