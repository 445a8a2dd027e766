"""Stretches of a row of tokens, each of which keeps its share."""

import pytest
import torch

from llava.pruners.search.stretches import Stretches, quotas


@pytest.mark.parametrize(("tokens", "most"), [(16, 4), (17, 4), (19, 4), (3, 8), (5, 1), (7, 7)])
def test_what_is_cut_is_joined_again(tokens, most):
    stretches = Stretches(tokens, most, torch.device("cpu"))
    values = torch.randn(2, tokens, generator=torch.Generator().manual_seed(0))
    cut = stretches.cut(values, fill=9.0)
    expected = [part for part in torch.arange(tokens).tensor_split(most) if len(part)]
    assert stretches.sizes.tolist() == [len(part) for part in expected]
    for number, part in enumerate(expected):
        assert torch.equal(cut[:, number, : len(part)], values[:, part])
        assert (cut[:, number, len(part) :] == 9.0).all()
    assert torch.equal(cut.ne(9.0), stretches.inside.expand_as(cut))
    assert torch.equal(stretches.join(cut), values)


def test_cosines_vary_by_their_distance_from_their_mean_over_the_others():
    tokens = torch.randn(1, 7, 5, generator=torch.Generator().manual_seed(1))
    variation = Stretches(7, 2, torch.device("cpu")).variation(tokens)
    for number, part in enumerate((tokens[0, :4], tokens[0, 4:])):
        unit = part.double() / part.double().norm(dim=1, keepdim=True)
        cosine = (unit @ unit.T).fill_diagonal_(0)
        apart = cosine - cosine.sum(dim=1, keepdim=True) / (len(part) - 1)
        expected = apart.square().sum(dim=1) / (len(part) - 1)
        torch.testing.assert_close(variation[0, number, : len(part)].double(), expected, rtol=1e-4, atol=1e-5)
    assert variation[0, 1, 3] == 0


def test_quotas_follow_the_weight_and_what_is_left_goes_round_by_share():
    sizes = torch.tensor([2, 4, 4, 4])
    weight = torch.tensor([[0.6, 0.1, 0.2, 0.1], [0.25, 0.25, 0.25, 0.25]])
    assert quotas(weight, sizes, 7).tolist() == [[2, 1, 3, 1], [2, 2, 2, 1]]
    assert quotas(weight, sizes, 13).tolist() == [[2, 4, 4, 3], [2, 4, 4, 3]]


def test_the_best_of_each_stretch_are_taken():
    stretches = Stretches(6, 2, torch.device("cpu"))
    scores = torch.tensor([[0.1, 0.9, 0.5, torch.nan, 0.2, 0.3]])
    assert stretches.best(scores, torch.tensor([[2.0, 1.0]]), 3).sort().values.tolist() == [[1, 2, 5]]
