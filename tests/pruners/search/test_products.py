"""Products of tokens against their plain definitions."""

from itertools import product

import pytest
import torch

from llava.pruners.search.products import directions, gram, unit_vectors


def test_unit_vectors_have_length_one_and_keep_their_direction():
    assert unit_vectors(torch.tensor([[3.0, 4.0], [0.0, -2.0]]))[:, :2].tolist() == [
        [pytest.approx(0.6), pytest.approx(0.8)],
        [0, -1],
    ]


def test_zero_and_non_finite_entries_give_no_direction():
    spoilt = torch.tensor([[0.0, 0.0], [torch.nan, 2.0], [torch.inf, -torch.inf]])
    assert unit_vectors(spoilt)[:, :2].tolist() == [[0, 0], [0, 1], [0, 0]]


def test_finite_aligned_tokens_are_not_copied_for_their_directions():
    tokens = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    same, scale = directions(tokens)
    assert same.data_ptr() == tokens.data_ptr()
    assert torch.allclose(same * scale.unsqueeze(2), unit_vectors(tokens))


@pytest.mark.parametrize("width", [7, 16, 32])
@pytest.mark.parametrize("odd", [torch.nan, -torch.inf, 0.0, 3e38])
def test_directions_of_odd_tokens_are_their_unit_vectors(odd, width):
    tokens = torch.randn(3, 5, width, generator=torch.Generator().manual_seed(1))
    tokens[1, 2:4] = odd
    tokens[1, 2, 0] = 1.0
    aligned, scale = directions(tokens)
    assert torch.allclose(aligned * scale.unsqueeze(2), unit_vectors(tokens), atol=1e-6)
    assert (scale[1, 3] == 0) and (scale[[0, 2]] > 0).all()


def test_an_odd_tile_leaves_the_bits_of_the_others():
    tokens = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(2))
    others = [directions(tokens)[part][[0, 2]] for part in (0, 1)]
    tokens[1, 2] = torch.nan
    for part in (0, 1):
        assert torch.equal(directions(tokens)[part][[0, 2]], others[part])


def test_a_view_that_is_not_aligned_has_the_directions_of_its_copy():
    wide = torch.randn(2, 5, 40, generator=torch.Generator().manual_seed(3))
    view = wide[:, :, 3:35]
    for part in (0, 1):
        assert torch.equal(directions(view)[part], directions(view.clone())[part])


def test_a_weight_scales_rows_and_columns_of_a_gram_and_keeps_it_symmetric():
    tokens = torch.randn(2, 150, 32, generator=torch.Generator().manual_seed(4))
    weight = torch.rand(2, 150, generator=torch.Generator().manual_seed(5))
    weighted = gram(tokens, weight)
    scaled = (tokens * weight.unsqueeze(2)).double()
    assert torch.equal(weighted, weighted.mT)
    assert torch.allclose(weighted.double(), scaled @ scaled.mT, rtol=0, atol=1e-4)


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
