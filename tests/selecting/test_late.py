"""Choosing among images that stand in prompts: what the pruner is told, copies of prompts, tokens behind them."""

from dataclasses import replace

import pytest
import torch

from llava.pruners import resolve_pruner
from llava.selecting.late import Placed, decide
from llava.selecting.options import PruningOptions
from llava.selecting.parts import Part, Visual

REAL = torch.tensor([[True] * 8, [False, *[True] * 7]])


def visual(**cues) -> Visual:
    return Visual(4, [Part(torch.arange(4))], {"cls_attention": torch.tensor([0.1, 0.4, 0.3, 0.2]), **cues})


def placed() -> list[Placed]:
    """An image in each of two prompts, named by a slice and by columns that text parts."""
    return [Placed(visual(), 0, slice(2, 6)), Placed(visual(), 1, torch.tensor([1, 2, 5, 6]))]


def test_columns_of_text_and_of_what_was_chosen_are_kept():
    decision = decide(PruningOptions(resolve_pruner("cls_topk", 2)), placed(), torch.randn(2, 8, 3), REAL)
    assert decision.keep.int().tolist() == [[1, 1, 0, 1, 1, 0, 1, 1], [0, 0, 1, 1, 1, 1, 0, 1]]
    assert [positions.tolist() for positions in decision.record.keep] == [[1, 2], [1, 2]]
    assert decision.record.visual_tokens == [2, 2] and decision.record.tokens_before == [4, 4]


@pytest.mark.parametrize("pruner", ["cls_topk", "visionzip"])
def test_copies_of_a_prompt_are_decided_as_one_and_what_grows_behind_is_kept(pruner):
    options, states = PruningOptions(resolve_pruner(pruner, 2)), torch.randn(2, 8, 3)
    images = [replace(each, visual=visual(keys=torch.randn(4, 3))) for each in placed()]
    once = decide(options, images, states, REAL)
    copied = [each.repeat_interleave(3, dim=0) for each in (states, REAL)]
    several = decide(options, images, *copied, copies=3)
    assert torch.equal(several.keep, once.keep) and torch.equal(several.record.keep[0], once.record.keep[0])
    grown = several.grown(6, 9)
    assert torch.equal(grown.keep[:, :8], once.keep.repeat_interleave(3, dim=0)) and grown.keep[:, 8].all()
    assert (grown.merged is None) == (pruner == "cls_topk")
    if grown.merged is not None:
        assert torch.equal(grown.merged[:, :8], once.merged.repeat_interleave(3, dim=0))


def test_without_features_embeddings_stand_in(spy):
    states = torch.randn(1, 8, 3)
    decide(PruningOptions(replace(spy, visual_token_num=2)), placed()[:1], states, REAL[:1])
    assert torch.equal(spy.told[0].features, spy.told[0].embeds)
    assert torch.equal(spy.told[0].embeds[0], states[0, 2:6])
    assert spy.told[0].relevance is None


def test_attention_is_asked_for_where_the_pruner_reads_it():
    row = torch.zeros(2, 8)
    row[0, [3, 4]], row[1, [5, 6]] = 1.0, 1.0
    options = PruningOptions(resolve_pruner("fastv", 2), prune_layer=1)
    decision = decide(options, placed(), torch.randn(2, 8, 3), REAL, lambda: row)
    assert [positions.tolist() for positions in decision.record.keep] == [[1, 2], [2, 3]]
    decide(PruningOptions(resolve_pruner("cls_topk", 2)), placed(), torch.randn(2, 8, 3), REAL, lambda: 1 / 0)
