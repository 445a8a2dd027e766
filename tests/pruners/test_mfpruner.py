"""MFPruner: three cues vote, their sum decides the rest."""

import dataclasses

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llava.pruners import VisualCues
from llava.pruners.mfpruner import MFPruner, dissimilarity


def tile(embeds, attention, relevance):
    embeds, attention, relevance = (torch.tensor([cue]) for cue in (embeds, attention, relevance))
    return VisualCues(features=None, embeds=embeds, cls_attention=attention, relevance=relevance)


def dissimilarity_by_pairs(embeds):
    unit = embeds.double() / embeds.double().norm(dim=-1, keepdim=True)
    return 1 - (unit @ unit.T).fill_diagonal_(0).sum(dim=1) / len(embeds)


def oracle(embeds, attention, relevance, budget):
    """Votes counted token by token in float64, and the smallest difference between two scores."""

    def min_max(x):
        return (x.double() - x.double().min() + 1e-6) / (x.double().max() - x.double().min() + 1e-6)

    cues = [min_max(attention), dissimilarity_by_pairs(embeds)]
    cues += [] if relevance is None else [min_max(relevance)]
    best = [set(cue.topk(budget).indices.tolist()) for cue in cues]
    total = sum(cues).tolist()
    narrowest = min(score.sort().values.diff().min().item() for score in [*cues, sum(cues)])

    def key(n):
        votes = sum(n in nominated for nominated in best)
        return (votes if votes >= 2 else 0, total[n])

    return sorted(sorted(range(len(embeds)), key=key, reverse=True)[:budget]), narrowest


@pytest.mark.parametrize("text", [True, False])
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), tokens=st.integers(2, 30), share=st.floats(0.05, 0.99))
def test_equals_the_votes_counted_one_by_one(random_cues, text, seed, tokens, share):
    cues = random_cues(seed=seed, tokens=tokens, width=6)
    cues = cues if text else dataclasses.replace(cues, relevance=None)
    budget = min(max(1, int(share * tokens)), tokens - 1)
    expected, narrowest = oracle(cues.embeds[0], cues.cls_attention[0], cues.relevance[0] if text else None, budget)
    assume(narrowest > 1e-6)
    assert MFPruner(budget)(cues).tolist() == [expected]


@given(seed=st.integers(0, 2**32 - 1), tokens=st.integers(1, 40))
def test_dissimilarity_equals_the_mean_over_all_pairs(random_cues, seed, tokens):
    embeds = random_cues(seed=seed, tokens=tokens, width=9).embeds
    assert torch.allclose(dissimilarity(embeds)[0].double(), dissimilarity_by_pairs(embeds[0]), rtol=0, atol=1e-6)


def test_two_votes_beat_one_strong_cue():
    # Token 0 is nominated by attention and dissimilarity, token 1 by relevance, far ahead of the others.
    embeds = [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]
    assert MFPruner(1)(tile(embeds, [0.30, 0.29, 0.2, 0.2], [0.0, 9.0, 0.0, 0.0])).tolist() == [[0]]


def test_without_two_votes_the_sum_decides():
    embeds = [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]
    # Nominated: 1 by attention, 0 by dissimilarity, 2 by relevance; 1 has the largest sum.
    assert MFPruner(1)(tile(embeds, [0.0, 1.0, 0.2, 0.0], [0.0, 0.9, 1.0, 0.0])).tolist() == [[1]]


def test_more_tokens_with_two_votes_than_the_budget_are_cut_by_the_sum():
    # Two cues nominate each of tokens 0, 1, 2 and all leave token 3 out.
    embeds = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]  # nominates 0 and 1
    attention = [0.1, 0.9, 1.0, 0.0]  # nominates 1 and 2
    relevance = [1.0, 0.0, 0.5, 0.1]  # nominates 0 and 2
    # Sums: 0.1 + 1 + 1, 0.9 + 1 + 0, 1.0 + 0.75 + 0.5.
    assert MFPruner(2)(tile(embeds, attention, relevance)).tolist() == [[0, 2]]


def test_statistics_run_over_all_tiles_of_an_image():
    # Three tokens of tile 0 have one vote each. Alone, token 0 has the largest sum; beside a tile whose relevance
    # reaches 100 its own shrinks, and token 3 with its attention goes ahead.
    embeds = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]] * 2)
    attention = torch.tensor([[0.6, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    relevance = torch.tensor([[1.0, 0.5, 0.0, 0.0], [100.0, 0.0, 0.0, 0.0]])
    cues = VisualCues(features=None, embeds=embeds, cls_attention=attention, relevance=relevance)
    apart = dataclasses.replace(cues, image_index=torch.tensor([1, 0]))
    assert MFPruner(1)(cues)[0].tolist() == [3]
    assert MFPruner(1)(apart)[0].tolist() == [0]


def test_a_value_that_is_not_finite_ranks_its_own_token_lowest(random_cues):
    cues = random_cues()
    attention, relevance = cues.cls_attention.clone(), cues.relevance.clone()
    attention[0, 4] = torch.nan
    relevance[0, 4] = torch.inf
    keep = MFPruner(15)(dataclasses.replace(cues, cls_attention=attention, relevance=relevance))
    assert 4 not in keep


def test_a_token_whose_attention_is_not_finite_is_kept_for_its_other_cues():
    # One vote each: token 0 by attention, 2 by dissimilarity, 3 by relevance; 3 has the largest sum.
    embeds = [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.1, 0.0, 1.0]]
    assert MFPruner(1)(tile(embeds, [0.6, 0.5, 0.5, torch.nan], [0.0, 0.0, 0.0, 1.0])).tolist() == [[3]]


QWEN = {"cues": "qwen_release"}


def test_the_qwen_release_fills_by_closeness_to_the_text():
    # Attention nominates 0 and 1, dissimilarity 0 and 2: 0 is in, and of the rest 3 is closest to the text.
    embeds = [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [-0.2, 1.0, 0.0], [1.0, 0.1, 0.0]]
    cues = tile(embeds, [0.9, 0.8, 0.1, 0.2], [0.0, 0.5, 0.1, 0.6])
    assert MFPruner(2, **QWEN)(cues).tolist() == MFPruner(keep_ratio=0.5, **QWEN)(cues).tolist() == [[0, 3]]


def test_the_qwen_release_fills_by_attention_where_there_is_no_text():
    embeds = [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [-0.2, 1.0, 0.0], [1.0, 0.1, 0.0]]
    cues = dataclasses.replace(tile(embeds, [0.9, 0.8, 0.1, 0.2], [0.0, 0.5, 0.1, 0.6]), relevance=None)
    assert MFPruner(2, **QWEN)(cues).tolist() == [[0, 1]]


@pytest.mark.parametrize("tokens, kept", [(500, 110), (1000, 221), (4, 1)])
@pytest.mark.parametrize("ratio", [0.222, 1 - 0.778])
def test_the_qwen_release_truncates_its_share(random_cues, tokens, kept, ratio):
    cues = random_cues(tokens=tokens, width=4)
    assert MFPruner(keep_ratio=ratio, **QWEN)(cues).shape == (1, kept)
    assert MFPruner(keep_ratio=ratio)(cues).shape == (1, round(tokens * ratio))


def test_an_unknown_rule_is_named():
    with pytest.raises(ValueError, match="cues must be paper or qwen_release, not 'release'"):
        MFPruner(2, cues="release")
