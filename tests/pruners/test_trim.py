"""TRIM: what the question is about, and one mean of the rest."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from llava.pruners import VisualCues
from llava.pruners.trim import Trim


def cues(relevance):
    return VisualCues(features=None, embeds=None, dot_relevance=torch.tensor([relevance]))


def test_the_mean_of_the_others_stands_where_the_last_of_them_stood():
    drawn, pruner = cues([0.1, 3.0, -2.0, 2.0, 0.5, 9.0]), Trim(4)
    assert pruner(drawn).tolist() == [[1, 3, 4, 5]]  # 4 is the last token of those that are not relevant: 0, 2, 4
    tokens = torch.tensor([[[1.0], [10.0], [5.0], [20.0], [6.0], [30.0]]])
    assert pruner.apply(tokens, pruner(drawn), drawn).tolist() == [[[10.0], [20.0], [4.0], [30.0]]]


@given(relevance=st.lists(st.integers(-5, 5), min_size=2, max_size=40), share=st.floats(0.01, 0.99))
def test_equals_the_method_written_down_on_lists(relevance, share):
    tokens, budget = range(len(relevance)), max(1, int(share * len(relevance)))
    relevant = sorted(tokens, key=lambda n: -relevance[n])[: budget - 1]
    rest = [n for n in tokens if n not in relevant]
    keep = sorted([*relevant, rest[-1]])
    drawn, pruner = cues([float(value) for value in relevance]), Trim(budget)
    assert pruner(drawn).tolist() == [keep]
    values = torch.randn(1, len(relevance), 3)
    expected = torch.stack([values[0, rest].mean(dim=0) if n == rest[-1] else values[0, n] for n in keep])
    torch.testing.assert_close(pruner.apply(values, pruner(drawn), drawn), expected.unsqueeze(0))


def test_a_softmax_over_the_patches_changes_no_order():
    relevance = torch.randn(1, 50, generator=torch.Generator().manual_seed(0)) * 5
    plain, soft = (
        VisualCues(None, None, dot_relevance=values) for values in (relevance, relevance.double().softmax(dim=-1) * 1e6)
    )
    assert torch.equal(Trim(20)(plain), Trim(20)(soft))


def test_what_is_kept_and_the_mean_of_the_rest_are_a_mean_of_all(random_cues):
    """Weighing the last token by the number of tokens in it gives the sum of the whole tile back."""
    drawn = random_cues(tiles=2, tokens=30)
    for budget in (1, 7, 29):
        pruner = Trim(budget)
        keep = pruner(drawn)
        tokens = pruner.apply(drawn.features, keep, drawn)
        changed = (tokens != drawn.features.take_along_dim(keep.unsqueeze(2), dim=1)).any(dim=2)
        counts = torch.where(changed, 30.0 - budget + 1, 1.0).unsqueeze(2)
        torch.testing.assert_close((tokens * counts).sum(dim=1), drawn.features.sum(dim=1), atol=1e-4, rtol=1e-4)
