"""Budgets that follow the picture: spectra and masses by hand, their bounds, and what a batch does not change."""

from dataclasses import replace
from math import ceil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llava.pruners import resolve_pruner
from llava.selecting.budgets import budgets_of, effective_rank, mass_count, spectral_budget
from llava.selecting.choose import choose
from llava.selecting.options import PruningOptions
from llava.selecting.parts import Part, Visual
from llava.selecting.planning import plan_of

SPECTRAL = {"budget": "spectral", "erank_ref": 10.0}


def seen(*lengths: int, rank: int = 8, seed: int = 0, relevance: bool = True, newlines: bool = False) -> Visual:
    """An image of tiles of these lengths whose tokens lie in ``rank`` directions, newline tokens behind each."""
    generator = torch.Generator().manual_seed(seed)
    parts, start = [], 0
    for length in lengths:
        parts.append(Part(torch.arange(start, start + length)))
        start += length + newlines
    embeds = torch.randn(start, rank, generator=generator) @ torch.randn(rank, 48, generator=generator)
    newline = torch.ones(start, dtype=torch.bool)
    newline[torch.cat([part.positions for part in parts])] = False
    embeds[newline] = 100 * torch.randn(48, generator=generator)
    cues = {"features": embeds[:, :6], "embeds": embeds, "cls_attention": torch.rand(start, generator=generator) ** 4}
    cues |= {"keys": embeds[:, 6:14], "last_keys": embeds[:, 6:14], "last_attention": cues["cls_attention"]}
    if relevance:
        cues["relevance"] = torch.randn(start, generator=generator)
        cues["dot_relevance"] = cues["relevance"]
    return Visual(start, parts, cues, newline if newlines else None)


def options(name: str = "divprune", tokens: int = 16, **more) -> PruningOptions:
    return PruningOptions(resolve_pruner(name, tokens), **more)


def entropy_rank(tokens: torch.Tensor) -> float:
    """The plain form: a singular value decomposition in float64."""
    values = tokens.double().numpy()
    singular = np.linalg.svd(values - values.mean(0), compute_uv=False)
    shares = singular[singular > 1e-9 * singular.max()] / singular.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def test_one_direction_has_rank_one_and_tokens_that_are_all_the_same_too():
    direction = torch.randn(40)
    assert effective_rank(torch.randn(30, 1) * direction) == pytest.approx(1, abs=1e-6)
    assert effective_rank(torch.linspace(0, 1, 30)[:, None] * direction + 7) == pytest.approx(1, abs=1e-4)
    assert effective_rank((direction * 0.3).repeat(576, 1)) == 1


@pytest.mark.parametrize(("tokens", "width"), [(5, 5), (5, 9), (64, 64), (64, 100)])
def test_orthonormal_tokens_have_one_rank_less_than_there_are_of_them(tokens, width):
    frame = torch.linalg.qr(torch.randn(width, width, dtype=torch.float64)).Q[:tokens]
    assert effective_rank(frame) == pytest.approx(tokens - 1)


def test_two_directions_by_hand():
    """Centred already; the singular values are 3 sqrt(2) and sqrt(2), shares 3/4 and 1/4."""
    tokens = torch.tensor([[3.0, 0], [-3.0, 0], [0, 1.0], [0, -1.0]])
    assert effective_rank(tokens) == pytest.approx(0.75**-0.75 * 0.25**-0.25)


@pytest.mark.parametrize("shape", [(30, 80), (80, 30), (1, 5), (2, 5)])
def test_either_gram_matrix_says_what_singular_values_say(shape):
    tokens = torch.randn(shape)
    expected = entropy_rank(tokens) if shape[0] > 1 else 1
    assert effective_rank(tokens) == pytest.approx(expected, rel=1e-6)
    assert effective_rank(tokens + 5) == pytest.approx(effective_rank(tokens), rel=1e-4)
    assert effective_rank(3 * tokens) == pytest.approx(effective_rank(tokens), rel=1e-9)


def test_a_row_that_is_no_number_counts_as_zeros():
    tokens = torch.randn(20, 30)
    broken = tokens.clone()
    broken[3], tokens[3] = float("nan"), 0
    assert effective_rank(broken) == effective_rank(tokens)


def test_more_directions_are_more_tokens():
    known = (1, 2, 4, 8, 16, 32)
    ranks = [effective_rank(seen(60, rank=rank).cues["embeds"]) for rank in known]
    assert ranks == sorted(ranks) and all(found <= rank for found, rank in zip(ranks, known, strict=True))
    budgets = [spectral_budget(rank, 10.0, 64) for rank in ranks]
    assert budgets == sorted(budgets) and budgets[0] < budgets[-1]


@given(st.floats(1, 1e4), st.floats(1e-3, 1e5), st.integers(16, 500))
def test_a_spectral_budget_lies_between_a_quarter_and_three_times(erank, reference, wanted):
    found = spectral_budget(erank, reference, wanted)
    assert ceil(wanted / 4) <= found <= 3 * wanted
    if ceil(wanted / 4) < found < 3 * wanted:
        assert abs(found - wanted * erank / reference) <= 0.5


def test_masses_by_hand():
    attention = torch.tensor([0.5, 0.3, 0.15, 0.05])
    assert [int(mass_count(attention, None, mass)) for mass in (0.5, 0.6, 0.8, 0.9, 1.0)] == [1, 2, 2, 3, 4]
    relevance = torch.tensor([-7.0, -5.0, -6.0, -3.0])  # of 0 to 1: 0, .5, .25, 1, of 1.75 in all
    assert int(mass_count(attention, relevance, 0.6)) == 2  # .3107 and .2929 of the fourth and second
    assert int(mass_count(attention, relevance, 0.61)) == 3


@pytest.mark.parametrize("same", [0.0, 1.0, -3.0, float("nan")])
def test_cues_that_say_nothing_are_even_shares(same):
    attention, relevance = torch.full((10,), same).abs(), torch.full((10,), same)
    assert int(mass_count(attention, relevance, 0.9)) == 9
    assert int(mass_count(attention, None, 0.55)) == 6


@given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=60), st.floats(0.01, 1), st.randoms())
def test_the_tokens_counted_hold_the_mass_and_one_fewer_do_not(values, mass, random):
    attention = torch.tensor(values)
    count = int(mass_count(attention, None, mass))
    weights = attention.double() if sum(values) else torch.ones(len(values)).double()
    held = (weights / weights.sum()).sort(descending=True).values.cumsum(0)
    assert held[count - 1] >= mass - 2e-6 and (count == 1 or held[count - 2] < mass)
    random.shuffle(values)
    assert int(mass_count(torch.tensor(values), None, mass)) == count


@pytest.mark.parametrize("budget", [SPECTRAL, {"budget": "mass"}, {"budget": "mass", "mass": 0.5}])
@pytest.mark.parametrize("name", ["divprune", "cdpruner", "cls_topk", "random", "uniform", "trim", "visionzip"])
@pytest.mark.parametrize("scope", ["tile", "image"])
def test_an_image_in_a_batch_keeps_what_it_keeps_alone(name, scope, budget):
    chosen = options(name, budget_scope=scope, **budget)
    visuals = [seen(40, rank=3, seed=1), seen(70, 70, 70, rank=30, seed=2), seen(20, 20, rank=9, seed=3, newlines=True)]
    tokens = [visual.cues["features"] for visual in visuals]
    together = choose(chosen, visuals, tokens)
    assert len({budget.per_tile for budget in together.budgets}) > 1
    for index, visual in enumerate(visuals):
        alone = choose(chosen, [visual], tokens[index : index + 1])
        assert alone.budgets == together.budgets[index : index + 1]
        assert torch.equal(alone.kept[0], together.kept[index])


@given(st.data())
def test_what_is_kept_is_what_was_measured_within_the_bounds(data):
    wanted, lengths = data.draw(st.integers(16, 40)), data.draw(st.lists(st.integers(1, 150), min_size=1, max_size=4))
    more = data.draw(st.sampled_from([{"budget": "mass"}, {"budget": "spectral", "erank_ref": 1.0}, SPECTRAL]))
    visual = seen(*lengths, rank=data.draw(st.integers(1, 20)), seed=data.draw(st.integers(0, 9)))
    chosen = options("uniform", wanted, **more)
    (budget,), (kept,) = budgets_of(chosen, [visual]), choose(chosen, [visual]).kept
    assert min(ceil(wanted / 4), max(lengths)) <= budget.per_tile <= min(3 * wanted, max(lengths))
    assert budget.parts == [min(length, budget.per_tile) for length in lengths]
    assert budget.kept == len(kept) and budget.tiles == len(lengths)


def test_newline_tokens_are_not_measured():
    plain, marked = seen(40, seed=4), seen(40, seed=4, newlines=True)
    marked.cues["embeds"][:40], marked.cues["cls_attention"][:40] = plain.cues["embeds"], plain.cues["cls_attention"]
    for more in (SPECTRAL, {"budget": "mass"}):
        one, two = (budgets_of(options(**more), [replace(each, cues={**each.cues})])[0] for each in (plain, marked))
        assert one.erank == two.erank
        assert one.per_tile == two.per_tile or more["budget"] == "mass"  # their relevance differs


def test_the_mass_of_several_tiles_is_shared_by_them():
    """Nine tenths of the attention lie on four of sixty tokens, all in the first of three tiles: two tokens each."""
    visual = seen(20, 20, 20, relevance=False)
    visual.cues["cls_attention"][:] = 1e-6
    visual.cues["cls_attention"][:4] = 1.0
    (budget,) = budgets_of(options("uniform", budget="mass"), [visual])
    assert (budget.per_tile, budget.parts) == (4, [4, 4, 4])  # two, but never less than a quarter
    visual.cues["cls_attention"][:25] = 1.0
    (budget,) = budgets_of(options("uniform", budget="mass"), [visual])
    assert budget.parts == [ceil(23 / 3)] * 3


def test_without_text_attention_is_all_the_mass():
    visual = seen(50)
    plain = replace(visual, cues={name: cue for name, cue in visual.cues.items() if name != "relevance"})
    one, two = budgets_of(options(tokens=16, budget="mass", mass=0.7), [visual, plain])
    count = int(mass_count(visual.cues["cls_attention"], None, 0.7))
    assert two.per_tile == min(max(count, 4), 48) and one.per_tile != two.per_tile


@pytest.mark.parametrize(("budget", "cue"), [("spectral", "embeds"), ("mass", "cls_attention")])
def test_a_cue_that_is_not_there_is_named(budget, cue):
    visual = seen(30)
    del visual.cues[cue]
    more = {"erank_ref": 3.0} if budget == "spectral" else {}
    with pytest.raises(ValueError, match=f"budget '{budget}' needs the cue {cue}"):
        choose(options("uniform", budget=budget, **more), [visual])


def test_a_fixed_budget_measures_nothing_and_a_batch_is_read_back_once(monkeypatch):
    reads = []
    read = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: reads.append(tensor.shape) or read(tensor))
    visuals = [seen(30), seen(40, 40, seed=1)]
    assert choose(options("divprune"), visuals).budgets is None and not reads
    for more in (SPECTRAL, {"budget": "mass"}):
        assert len(choose(options("divprune", **more), visuals).budgets) == 2
        assert len(reads) == 1
        reads.clear()


def test_a_plan_takes_the_budgets_that_it_is_told():
    plan = plan_of(options("uniform"), [seen(30, 30), seen(20)], [[3, 7], [11]])
    assert plan.counts == [10, 11]
