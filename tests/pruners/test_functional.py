"""The shared tensor functions against their plain definitions."""

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llava.pruners.functional import gram, image_max, image_min, rank, unit_vectors


def test_unit_vectors_have_length_one_and_keep_their_direction():
    assert unit_vectors(torch.tensor([[3.0, 4.0], [0.0, -2.0]]))[:, :2].tolist() == [
        [pytest.approx(0.6), pytest.approx(0.8)],
        [0, -1],
    ]


def test_zero_and_non_finite_entries_give_no_direction():
    spoilt = torch.tensor([[0.0, 0.0], [torch.nan, 2.0], [torch.inf, -torch.inf]])
    assert unit_vectors(spoilt)[:, :2].tolist() == [[0, 0], [0, 1], [0, 0]]


@pytest.mark.parametrize(("tokens", "width"), [(5, 7), (64, 16), (65, 3), (150, 40), (600, 16)])
def test_a_gram_of_unit_vectors_is_symmetric_to_the_bit_and_right(tokens, width):
    x = torch.randn(2, tokens, width, generator=torch.Generator().manual_seed(tokens))
    unit = (x / x.norm(dim=-1, keepdim=True)).double()
    cosine = gram(unit_vectors(x))
    assert torch.equal(cosine, cosine.mT)
    assert torch.allclose(cosine.double(), unit @ unit.mT, rtol=0, atol=1e-6)


def test_a_tile_has_the_same_bits_alone_and_in_a_batch():
    generator = torch.Generator().manual_seed(0)
    for tokens, width in product(range(5, 20), (5, 9, 13, 17, 21, 30)):
        tiles = torch.randn(4, tokens, width, generator=generator)
        alone = torch.cat([gram(unit_vectors(tiles[i : i + 1])) for i in range(4)])
        assert torch.equal(gram(unit_vectors(tiles)), alone)


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
