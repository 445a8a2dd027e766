"""Budgets, options and the checks around a selection."""

import json
import re
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from llava.pruners import PRUNERS, Pruner, VisualCues
from llava.pruners.cues import CUES, PER_TOKEN_VECTORS


@dataclass(frozen=True)
class Last(Pruner):
    """Keeps the last tokens and hands them over in descending order."""

    strength: float = 1.0

    needs = frozenset({"embeds"})

    def select(self, cues, budget):
        assert cues.embeds.dtype == torch.float32
        batch, num_tokens = cues.shape
        return torch.arange(num_tokens - 1, num_tokens - 1 - budget, -1).repeat(batch, 1)


@dataclass(frozen=True)
class Blend(Last):
    """Keeps the last tokens; each becomes itself and half of the first."""

    def merge(self, cues, keep):
        weights = torch.zeros(*keep.shape, cues.shape[1]).scatter_(2, keep.unsqueeze(2), 1.0)
        weights[:, :, 0] += 0.5
        return weights


def cues(tiles=2, tokens=6, dtype=torch.float32):
    return VisualCues(features=None, embeds=torch.zeros(tiles, tokens, 3, dtype=dtype))


@pytest.mark.parametrize(("budget", "tokens", "kept"), [(0, 6, 0), (4, 6, 4), (6, 6, 6), (9, 6, 6), (9, 0, 0)])
def test_a_budget_beyond_the_tokens_keeps_them_all(budget, tokens, kept):
    assert Last(budget).budget(tokens) == kept


@pytest.mark.parametrize(
    ("ratio", "tokens", "kept"),
    [(0.098, 576, 56), (0.125, 36, 4), (0.5, 3, 2), (0.5, 5, 2), (64 / 576, 576, 64), (1, 5, 5)],
)
def test_a_ratio_rounds_halves_to_even(ratio, tokens, kept):
    assert Last(keep_ratio=ratio).budget(tokens) == kept


@pytest.mark.parametrize("name", PRUNERS)
@pytest.mark.parametrize(("ratio", "tokens"), [(0.001, 144), (0.003, 144), (0.5, 1), (1e-300, 576)])
def test_a_ratio_never_comes_to_no_token(name, ratio, tokens):
    assert PRUNERS[name](keep_ratio=ratio).budget(tokens) == 1
    assert PRUNERS[name](keep_ratio=ratio).budget(0) == 0


@pytest.mark.parametrize("name", PRUNERS)
@pytest.mark.parametrize("value", [-1, 1.5, True, "64", float("nan"), float("inf"), np.bool_(True), np.float32(8)])
def test_a_wrong_token_count_is_named(name, value):
    with pytest.raises(ValueError, match="visual_token_num must be an integer, 0 or more"):
        PRUNERS[name](visual_token_num=value)


@pytest.mark.parametrize("value", [0, 0.0, -0.1, 1.01, float("nan"), float("inf"), True, "half", np.float32(2)])
def test_a_wrong_ratio_is_named(value):
    with pytest.raises(ValueError, match=r"keep_ratio must be a number in \(0, 1\]"):
        Last(keep_ratio=value)


@pytest.mark.parametrize("budgets", [{}, {"visual_token_num": 4, "keep_ratio": 0.5}])
def test_exactly_one_budget_is_needed(budgets):
    with pytest.raises(ValueError, match="exactly one of visual_token_num and keep_ratio"):
        Last(**budgets)


@pytest.mark.parametrize("name", PRUNERS)
@pytest.mark.parametrize("kind", [np.float32, np.float64, Fraction])
def test_other_kinds_of_numbers_become_pythons_own(name, kind):
    pruner = PRUNERS[name](visual_token_num=np.int64(8))
    assert pruner == PRUNERS[name](8) and type(pruner.visual_token_num) is int
    pruner = PRUNERS[name](keep_ratio=kind(0.5))
    assert pruner == PRUNERS[name](keep_ratio=0.5) and type(pruner.keep_ratio) is float
    numbers = {option: value for option, value in pruner.options().items() if isinstance(value, int | float)}
    given = {option: np.asarray(value)[()] for option, value in numbers.items()}
    assert json.dumps(PRUNERS[name](np.int32(8), **given).options()) == json.dumps(PRUNERS[name](8).options())


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


TOKENS = torch.arange(12.0).view(2, 6, 1) + 1  # 1 to 6 and 7 to 12
KEEP = torch.tensor([[0, 5], [2, 3]])


def test_a_method_that_does_not_merge_leaves_the_kept_tokens_as_they_are():
    assert not Last(2).merges
    tokens = torch.randn(2, 6, 3, dtype=torch.float64) * torch.tensor([1.0, torch.nan, torch.inf])
    kept = Last(2).apply(tokens, torch.tensor([[0, 5], [2, 3]]), cues())
    assert torch.equal(kept.nan_to_num(), torch.stack([tokens[0, [0, 5]], tokens[1, [2, 3]]]).nan_to_num())


def test_a_method_that_merges_weighs_the_tokens_of_each_tile():
    assert Blend(2).merges
    assert Blend(2).apply(TOKENS, Blend(2)(cues()), cues()).tolist() == [[[5.5], [6.5]], [[14.5], [15.5]]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_tokens_are_merged_in_float32_and_keep_their_dtype(dtype):
    merged = Blend(2).apply(TOKENS.to(dtype), Blend(2)(cues()), cues())
    assert merged.dtype == dtype
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens = torch.full((2, 6, 1), 1.001)
        assert Blend(2).apply(tokens, Blend(2)(cues()), cues())[0, 0] == 1.5 * tokens[0, 0]


def test_what_is_not_finite_counts_as_zero_where_tokens_are_merged():
    tokens = TOKENS.clone()
    tokens[0, 0], tokens[1, 5] = torch.nan, torch.inf
    assert Blend(2).apply(tokens, Blend(2)(cues()), cues()).tolist() == [[[5.0], [6.0]], [[14.5], [3.5]]]


@pytest.mark.parametrize("budget", [0, 6, 9])
def test_nothing_is_merged_where_nothing_was_chosen(budget):
    assert torch.equal(Blend(budget).apply(TOKENS, Blend(budget)(cues()), cues()), TOKENS[:, :budget])


def test_merging_reaches_the_gradient_of_the_tokens():
    tokens = TOKENS.clone().requires_grad_()
    Blend(2).apply(tokens, Blend(2)(cues()), cues()).sum().backward()
    assert tokens.grad.flatten().tolist() == [1, 0, 0, 0, 1, 1] * 2


def test_merging_names_a_cue_that_is_missing():
    with pytest.raises(ValueError, match="Blend needs the cue embeds"):
        Blend(2).apply(TOKENS, torch.tensor([[0, 1]] * 2), VisualCues(features=TOKENS, embeds=None))


def test_an_unknown_scope_fails_when_the_class_is_made():
    with pytest.raises(TypeError, match="Wide.scope must be 'tile' or 'image', not 'page'"):
        type("Wide", (Pruner,), {"scope": "page"})


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
    with pytest.raises(ValueError, match="at least one cue"):
        VisualCues(features=None, embeds=None)


def test_image_index_must_fit_the_tiles():
    with pytest.raises(ValueError, match="one image for each of 2 tiles"):
        VisualCues(features=None, embeds=torch.zeros(2, 5, 3), image_index=torch.zeros(3))


def wrong_rank(name):
    return (2, 5) if name in PER_TOKEN_VECTORS else (2, 5, 3)


@pytest.mark.parametrize("name", CUES)
def test_a_cue_of_another_rank_is_named_with_its_shape(name):
    cue = torch.zeros(wrong_rank(name))
    with pytest.raises(ValueError, match=rf"{name} must be of shape \(B, N.*not {re.escape(str(tuple(cue.shape)))}"):
        VisualCues(**{"features": None, "embeds": None, name: cue})


@pytest.mark.parametrize("name", CUES)
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64])
def test_a_cue_of_other_numbers_is_named_with_its_dtype(name, dtype):
    shape = (2, 5, 3) if name in PER_TOKEN_VECTORS else (2, 5)
    with pytest.raises(TypeError, match=f"{name} must hold floating-point numbers, not {dtype}"):
        VisualCues(**{"features": None, "embeds": None, name: torch.zeros(shape, dtype=dtype)})


@pytest.mark.parametrize("name", CUES)
def test_a_cue_that_is_no_tensor_is_named(name):
    with pytest.raises(TypeError, match=f"{name} must be a tensor.* not ndarray"):
        VisualCues(**{"features": None, "embeds": None, name: np.zeros((2, 5, 3))})


@pytest.mark.parametrize("shape", [(0, 5, 3), (2, 5, 0)])
def test_an_empty_cue_is_refused(shape):
    with pytest.raises(ValueError, match=rf"embeds.*must not be empty: {re.escape(str(shape))}"):
        VisualCues(features=None, embeds=torch.zeros(shape))


@pytest.mark.parametrize("budget", [{"visual_token_num": 3}, {"keep_ratio": 0.5}])
def test_tiles_without_tokens_keep_none(budget):
    assert Last(**budget)(VisualCues(features=None, embeds=torch.zeros(2, 0, 3))).shape == (2, 0)


@pytest.mark.parametrize(("tiles", "tokens"), [(3, 5), (2, 6)])
@pytest.mark.parametrize("name", [name for name in CUES if name != "embeds"])
def test_every_cue_must_be_of_the_same_tiles_and_tokens(name, tiles, tokens):
    cue = torch.zeros((tiles, tokens, 4) if name in PER_TOKEN_VECTORS else (tiles, tokens))
    with pytest.raises(ValueError, match=rf"must share.*{name}.*\({tiles}, {tokens}"):
        VisualCues(**{"features": None, "embeds": torch.zeros(2, 5, 3), name: cue})


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (torch.zeros(2, 1, dtype=torch.long), ValueError, r"one image for each of 2 tiles, its shape is \(2, 1\)"),
        (torch.tensor(0), ValueError, "one image for each of 2 tiles"),
        (torch.tensor([0.0, torch.nan]), TypeError, "image_index must hold integers, not torch.float32"),
        ([0, 1], TypeError, "image_index must be a tensor, not list"),
    ],
)
def test_an_image_index_of_something_else_is_refused(labels, error, message):
    with pytest.raises(error, match=message):
        VisualCues(features=None, embeds=torch.zeros(2, 5, 3), image_index=labels)


@pytest.mark.parametrize("name", sorted(set(PRUNERS) - {"random", "uniform"}))
def test_cues_that_are_read_must_be_on_one_device(name, random_cues):
    given, pruner = random_cues(), PRUNERS[name](5)
    elsewhere = replace(given, image_index=torch.zeros(1, dtype=torch.long, device="meta"))
    with pytest.raises(ValueError, match="one device; given: .*cpu.*'image_index': 'meta'"):
        pruner(elsewhere)
    others = {cue: getattr(given, cue).to("meta") for cue in CUES if cue not in pruner.needs}
    assert torch.equal(pruner(replace(given, **others)).cpu(), pruner(given))


def test_something_else_than_cues_is_refused():
    with pytest.raises(TypeError, match="Last chooses by VisualCues, not Tensor"):
        Last(3)(torch.zeros(2, 6, 3))


@pytest.mark.parametrize(
    ("tokens", "keep", "error", "message"),
    [
        (TOKENS[0], KEEP, ValueError, r"tokens must be of shape \(B, N, D\).*not \(6, 1\)"),
        (TOKENS[:, :5], KEEP, ValueError, r"tokens.*sizes \(2, 6, None\), not \(2, 5, 1\)"),
        (TOKENS.long(), KEEP, TypeError, "tokens must hold floating-point numbers, not torch.int64"),
        (TOKENS, KEEP[0], ValueError, r"keep must be of shape \(B, K\).*not \(2,\)"),
        (TOKENS, KEEP[:1], ValueError, r"keep.*sizes \(2, None\), not \(1, 2\)"),
        (TOKENS, KEEP.float(), TypeError, "keep must hold torch.int64, not torch.float32"),
        (TOKENS, KEEP.bool(), TypeError, "keep must hold torch.int64, not torch.bool"),
    ],
)
@pytest.mark.parametrize("kind", [Last, Blend])
def test_tokens_and_choices_of_another_form_are_refused(kind, tokens, keep, error, message):
    with pytest.raises(error, match=message):
        kind(2).apply(tokens, keep, cues())


@pytest.mark.parametrize(
    ("chosen", "error", "message"),
    [
        (torch.zeros(2, 4, dtype=torch.long), ValueError, r"Short.select returns.*\(2, 3\), not \(2, 4\)"),
        (torch.zeros(2, 3), TypeError, "Short.select returns must hold torch.int64, not torch.float32"),
        ([[0, 1, 2]] * 2, TypeError, "Short.select returns must be a tensor"),
    ],
)
def test_a_method_that_returns_something_else_is_named(chosen, error, message):
    class Short(Pruner):
        def select(self, cues, budget):
            return chosen

    with pytest.raises(error, match=message):
        Short(3)(cues())
