"""VisionZip: attention first, then the rest merged into tokens at even distances."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.pruners import PRUNERS, VisualCues
from llava.pruners.visionzip import VisionZip

# Unit vectors whose cosines are multiples of a quarter: exact in float32, and often tied.
DIRECTIONS = torch.cat([torch.eye(4), torch.cartesian_prod(*[torch.tensor([-0.5, 0.5])] * 4)]).tolist()


def cues(attention, keys):
    return VisualCues(features=None, embeds=None, cls_attention=torch.tensor([attention]), keys=torch.tensor([keys]))


def shares(pruner, drawn):
    """Which tokens each kept one is made of, (B, K, N)."""
    batch, tokens = drawn.shape
    return pruner.apply(torch.eye(tokens).repeat(batch, 1, 1), pruner(drawn), drawn)


def oracle(attention, keys, budget, contextual_ratio):
    """The method as it is published, on lists: for each kept token, in raster order, its share of every token."""
    tokens = range(len(attention))
    contextual = int(budget * contextual_ratio)
    dominant = sorted(tokens, key=lambda n: -attention[n])[: budget - contextual]
    rest = [n for n in tokens if n not in dominant]
    targets = [rest[i * (len(rest) // contextual)] for i in range(contextual)] if contextual else []

    def cosine(n, m):
        return sum(a * b for a, b in zip(keys[n], keys[m], strict=True))

    followers = {target: [] for target in targets}
    for n in rest:
        if targets and n not in targets:
            followers[max(targets, key=lambda target: cosine(n, target))].append(n)
    rows = []
    for n in sorted(dominant + targets):
        mine = followers.get(n, [])
        rows.append([float(m == n) + (m in mine) / max(len(mine), 1) for m in tokens])
    return sorted(dominant + targets), rows


@settings(max_examples=150, deadline=None)
@given(
    directions=st.lists(st.sampled_from(range(len(DIRECTIONS))), min_size=2, max_size=45),
    attention=st.lists(st.integers(0, 20), min_size=45, max_size=45),
    share=st.floats(0.01, 0.99),
    contextual_ratio=st.sampled_from([0.0, 10 / 64, 0.5, 0.9]),
)
def test_equals_the_method_written_down_on_lists(directions, attention, share, contextual_ratio):
    keys = [DIRECTIONS[index] for index in directions]
    attention = [float(a) for a in attention[: len(keys)]]
    budget = max(1, int(share * len(keys)))
    pruner, drawn = VisionZip(budget, contextual_ratio=contextual_ratio), cues(attention, keys)
    keep, rows = oracle(attention, keys, budget, contextual_ratio)
    assert pruner(drawn).tolist() == [keep]
    torch.testing.assert_close(shares(pruner, drawn), torch.tensor([rows]), atol=1e-6, rtol=0)


def test_a_token_joins_the_target_it_resembles():
    # Token 2 is dominant. Of 0, 1, 3, 4, 5 in raster order, 0 and 3 (two steps on) are targets.
    left, right = [1.0, 0.0], [0.0, 1.0]
    drawn = cues([0.1, 0.1, 0.9, 0.1, 0.1, 0.1], [left, right, left, right, [0.8, 0.6], right])
    pruner = VisionZip(3, contextual_ratio=0.7)
    assert pruner(drawn).tolist() == [[0, 2, 3]]
    tokens = torch.tensor([[[1.0], [10.0], [100.0], [1000.0], [3.0], [20.0]]])
    # 4 joins 0; 1 and 5 join 3, which gets their mean; 2 stays as it is, whatever resembles it.
    assert pruner.apply(tokens, pruner(drawn), drawn).tolist() == [[[4.0], [100.0], [1015.0]]]


@pytest.mark.parametrize(("budget", "contextual"), [(64, 10), (128, 20), (192, 30)])
def test_the_published_shares_of_dominant_and_contextual_tokens(random_cues, budget, contextual):
    drawn = random_cues(tokens=576, width=8)
    keep = set(VisionZip(budget)(drawn)[0].tolist())
    attended = drawn.cls_attention[0].topk(budget).indices.tolist()
    assert set(attended[: budget - contextual]) <= keep and len(keep) == budget


def test_every_token_that_is_not_kept_goes_to_one_target(random_cues):
    drawn = random_cues(tiles=3, tokens=50)
    for budget in range(2, 50):
        weights = shares(VisionZip(budget, contextual_ratio=0.5), drawn)
        assert ((weights > 0).sum(dim=1) == 1).all()
        totals = weights.sum(dim=2)  # 1 of a token that stays as it is, 2 of a target with followers
        assert ((totals - 1).abs().minimum((totals - 2).abs()) < 1e-5).all()
        assert ((totals > 1.5).sum(dim=1) <= budget // 2).all()


@pytest.mark.parametrize("budget", range(1, 25))
def test_attention_alone_without_contextual_tokens(random_cues, budget):
    drawn, pruner = random_cues(tiles=2, tokens=25), VisionZip(budget, contextual_ratio=0)
    assert torch.equal(pruner(drawn), PRUNERS["cls_topk"](budget)(drawn))
    assert torch.equal(
        pruner.apply(drawn.features, pruner(drawn), drawn),
        drawn.features.take_along_dim(pruner(drawn).unsqueeze(2), dim=1),
    )


@pytest.mark.parametrize("ratio", [-0.1, 1.0, float("nan"), True, "0.5", None])
def test_a_wrong_contextual_ratio_is_named(ratio):
    with pytest.raises(ValueError, match=r"contextual_ratio must be a number in \[0, 1\)"):
        PRUNERS["visionzip"](4, contextual_ratio=ratio)
