"""The shared tensor functions against their plain definitions."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from llava.pruners.functional import image_max, image_min, rank


def test_rank_keeps_many_equal_scores_in_order():
    scores = torch.arange(2000) % 3 / 2
    assert torch.equal(rank(scores), torch.cat([torch.arange(start, 2000, 3) for start in (2, 1, 0)]))


@given(
    st.lists(st.sampled_from([0.0, 1.0, 2.5, -1.0, float("nan"), float("inf"), -float("inf")]), min_size=1, max_size=12)
)
def test_rank_goes_down_breaks_ties_by_index_and_leaves_the_odd_for_last(scores):
    def key(index):
        odd = scores[index] - scores[index] != 0
        return (odd, 0 if odd else -scores[index], index)

    assert rank(torch.tensor([scores])).tolist() == [sorted(range(len(scores)), key=key)]


def test_a_tier_comes_before_the_score():
    assert rank(torch.tensor([[4.0, 1.0, 3.0, 2.0]]), tier=torch.tensor([[0, 2, 0, 2]])).tolist() == [[3, 1, 0, 2]]


def test_extremes_run_over_the_tiles_of_an_image():
    values = torch.tensor([[1.0, 5.0], [torch.nan, 0.0], [-2.0, 3.0]])
    labels = torch.tensor([9, 4, 9])
    assert image_min(values, labels)[[0, 2], 0].tolist() == [-2, -2]
    assert image_max(values, labels)[[0, 2], 0].tolist() == [5, 5]
    assert image_min(values, labels)[1].isnan() and image_max(values, labels)[1].isnan()
    assert image_min(values[[0, 2]], None).tolist() == [[-2], [-2]]


def test_extremes_of_several_cues_are_those_of_each():
    values = torch.randn(4, 3, 7, generator=torch.Generator().manual_seed(0))
    for labels in (None, torch.tensor([2, 0, 2, 5])):
        for extreme in (image_min, image_max):
            apart = torch.stack([extreme(cue, labels) for cue in values.unbind(1)], dim=1)  # (4, 3, 1)
            assert torch.equal(extreme(values, labels), apart)
