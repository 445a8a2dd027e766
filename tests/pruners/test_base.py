"""Budgets, options and the checks around a selection."""

from dataclasses import dataclass

import pytest
import torch

from llava.pruners import PRUNERS, Pruner, VisualCues


@dataclass(frozen=True)
class Last(Pruner):
    """Keeps the last tokens and hands them over in descending order."""

    strength: float = 1.0

    needs = frozenset({"embeds"})

    def select(self, cues, budget):
        assert cues.embeds.dtype == torch.float32
        batch, num_tokens = cues.shape
        return torch.arange(num_tokens - 1, num_tokens - 1 - budget, -1).repeat(batch, 1)


def cues(tiles=2, tokens=6, dtype=torch.float32):
    return VisualCues(features=None, embeds=torch.zeros(tiles, tokens, 3, dtype=dtype))


@pytest.mark.parametrize(("budget", "tokens", "kept"), [(0, 6, 0), (4, 6, 4), (6, 6, 6), (9, 6, 6), (9, 0, 0)])
def test_a_budget_beyond_the_tokens_keeps_them_all(budget, tokens, kept):
    assert Last(budget).budget(tokens) == kept


@pytest.mark.parametrize(
    ("ratio", "tokens", "kept"),
    [(0.098, 576, 56), (0.125, 36, 4), (0.5, 3, 2), (0.5, 1, 0), (64 / 576, 576, 64), (1, 5, 5)],
)
def test_a_ratio_rounds_halves_to_even(ratio, tokens, kept):
    assert Last(keep_ratio=ratio).budget(tokens) == kept


@pytest.mark.parametrize("name", PRUNERS)
@pytest.mark.parametrize("value", [-1, 1.5, True, "64"])
def test_a_wrong_token_count_is_named(name, value):
    with pytest.raises(ValueError, match="visual_token_num must be an integer, 0 or more"):
        PRUNERS[name](visual_token_num=value)


@pytest.mark.parametrize("value", [0, 0.0, -0.1, 1.01, float("nan"), True, "half"])
def test_a_wrong_ratio_is_named(value):
    with pytest.raises(ValueError, match=r"keep_ratio must be a number in \(0, 1\]"):
        Last(keep_ratio=value)


@pytest.mark.parametrize("budgets", [{}, {"visual_token_num": 4, "keep_ratio": 0.5}])
def test_exactly_one_budget_is_needed(budgets):
    with pytest.raises(ValueError, match="exactly one of visual_token_num and keep_ratio"):
        Last(**budgets)


def test_another_budget_keeps_the_options():
    assert Last(keep_ratio=0.5, strength=3.0).with_budget(7) == Last(7, strength=3.0)


def test_options_leave_the_budget_out():
    assert Last(7, strength=3.0).options() == {"strength": 3.0}


def test_the_result_is_sorted_however_the_method_chose():
    assert Last(3)(cues()).tolist() == [[3, 4, 5], [3, 4, 5]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_method_sees_float32(dtype):
    assert Last(3)(cues(dtype=dtype)).shape == (2, 3)


@pytest.mark.parametrize(
    ("budget", "expected"), [(0, [[], []]), (6, [[0, 1, 2, 3, 4, 5]] * 2), (7, [[0, 1, 2, 3, 4, 5]] * 2)]
)
def test_nothing_is_computed_where_nothing_is_chosen(budget, expected, monkeypatch):
    monkeypatch.setattr(Last, "select", lambda *_: pytest.fail("select was called"))
    keep = Last(budget)(cues())
    assert keep.dtype == torch.int64 and keep.tolist() == expected


def test_an_unknown_cue_fails_when_the_class_is_made():
    with pytest.raises(TypeError, match="cls_atention.*cls_attention"):

        class Misspelt(Pruner):
            needs = frozenset({"cls_atention"})


def test_a_pruner_cannot_be_changed():
    with pytest.raises(AttributeError):
        Last(3).visual_token_num = 4


def test_cues_of_different_length_are_refused():
    with pytest.raises(ValueError, match=r"features.*\(2, 5, 3\).*relevance.*\(2, 6\)"):
        VisualCues(features=torch.zeros(2, 5, 3), embeds=None, relevance=torch.zeros(2, 6))


def test_cues_without_any_token_are_refused():
    with pytest.raises(ValueError, match="cues must share"):
        VisualCues(features=None, embeds=None)


def test_image_index_must_fit_the_tiles():
    with pytest.raises(ValueError, match="one image for each of 2 tiles"):
        VisualCues(features=None, embeds=torch.zeros(2, 5, 3), image_index=torch.zeros(3))
