"""PruMerge: attention first, neighbours added to what is kept, the others summed up in one token."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.pruners import VisualCues
from llava.pruners.prumerge import NEIGHBOURS, PruMerge

# Unit vectors whose cosines are multiples of a quarter: exact in float32, and often tied.
DIRECTIONS = torch.cat([torch.eye(4), torch.cartesian_prod(*[torch.tensor([-0.5, 0.5])] * 4)]).tolist()


def cues(attention, keys):
    attention, keys = torch.tensor([attention]), torch.tensor([keys])
    return VisualCues(features=None, embeds=None, last_attention=attention, last_keys=keys)


def oracle(attention, keys, budget):
    """The method as it is published, on lists: for each kept token, in raster order, its share of every token."""
    tokens = range(len(attention))
    kept = sorted(tokens, key=lambda n: -attention[n])[: budget - 1]
    place = max(n for n in tokens if n not in kept)

    def cosine(n, m):
        return sum(a * b for a, b in zip(keys[n], keys[m], strict=True))

    rows = []
    for n in sorted([*kept, place]):
        others = [m for m in tokens if m != n]
        near = sorted(others, key=lambda m: -cosine(n, m))[:32]
        row = [float(m == n) + attention[m] * (m in near) for m in tokens]
        rows.append([attention[m] * (m not in kept) for m in tokens] if n == place else row)
    return sorted([*kept, place]), rows


@settings(max_examples=150, deadline=None)
@given(
    directions=st.lists(st.sampled_from(range(len(DIRECTIONS))), min_size=2, max_size=60),
    attention=st.lists(st.integers(0, 20), min_size=60, max_size=60),
    share=st.floats(0.01, 0.99),
)
def test_equals_the_method_written_down_on_lists(directions, attention, share):
    keys = [DIRECTIONS[index] for index in directions]
    attention = [a / 16 for a in attention[: len(keys)]]
    budget = max(1, int(share * len(keys)))
    pruner, drawn = PruMerge(budget), cues(attention, keys)
    keep, rows = oracle(attention, keys, budget)
    assert pruner(drawn).tolist() == [keep]
    identity = torch.eye(len(keys)).unsqueeze(0)
    assert pruner.apply(identity, pruner(drawn), drawn).tolist() == [rows]


def test_neighbours_are_added_by_their_attention_and_the_others_summed_up():
    near = [[1.0, 0.0]] * 33 + [[-1.0, 0.0]] * 3  # every token of the first kind has 32 neighbours of its kind
    attention = [0.5] + [0.0] * 31 + [0.25] + [0.125] * 3
    pruner, drawn = PruMerge(2), cues(attention, near)
    tokens = torch.tensor([[[1.0]] + [[7.0]] * 31 + [[4.0]] + [[16.0]] * 3])
    assert pruner(drawn).tolist() == [[0, 35]]
    # Token 0 takes a quarter of 32 and nothing of the other 31. The last place holds the sum of all others.
    assert pruner.apply(tokens, pruner(drawn), drawn).tolist() == [[[1.0 + 1.0], [1.0 + 3 * 2.0]]]


@pytest.mark.parametrize("tokens", [2, NEIGHBOURS, NEIGHBOURS + 1, NEIGHBOURS + 2])
def test_a_tile_of_few_tokens_has_fewer_neighbours(random_cues, tokens):
    drawn = random_cues(tokens=tokens)
    weights = PruMerge(tokens - 1).apply(torch.eye(tokens).unsqueeze(0), PruMerge(tokens - 1)(drawn), drawn)
    kept = (weights[0] >= 1).any(dim=1)
    assert ((weights[0] > 0).sum(dim=1)[kept] == 1 + min(NEIGHBOURS, tokens - 1)).all()


def test_a_budget_of_one_is_the_attention_weighted_sum_of_all(random_cues):
    drawn, pruner = random_cues(tiles=3), PruMerge(1)
    expected = (drawn.last_attention.unsqueeze(2) * drawn.features).sum(dim=1, keepdim=True)
    torch.testing.assert_close(pruner.apply(drawn.features, pruner(drawn), drawn), expected)
