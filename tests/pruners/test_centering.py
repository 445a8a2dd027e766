"""Centred tokens: what of them is compared, how distinctive they are, and what the pruners make of both."""

from dataclasses import replace

import pytest
import torch

from llava.bench.harness import Counter
from llava.pruners import PRUNERS, VisualCues
from llava.pruners.centering import centred

from .conftest import as_on_a_device

CENTRED = ("cdpruner", "divprune", "zoo_prune")
each_centred = pytest.mark.parametrize("name", CENTRED)


def unit(rows):
    return rows / rows.norm(dim=-1, keepdim=True)


def plainly(tokens, form):
    """The cosines of the centred tokens of one tile and how distinctive each is, pair by pair in float64."""
    tokens = tokens.double()
    if form == "standardised":
        tokens = tokens / ((tokens - tokens.mean(0)).square().mean(0) + 1e-6).sqrt()
    cosine = unit(tokens) @ unit(tokens).T
    g = -(cosine.sum(1) - cosine.diagonal()) / (len(tokens) - 1)
    away = unit(tokens - tokens.mean(0))
    if form == "standardised":
        return away @ away.T, ((g - g.mean()) / (g.std(correction=0) + 1e-6)).sigmoid()
    return away @ away.T, (g - g.min()) / (g.max() - g.min())


def farthest(cosine, weight, budget, first=None):
    """The picks of the max-min search with weights."""
    others = cosine.clone().fill_diagonal_(-torch.inf)
    picks = [int((1 - others.amax(1)).argmax()) if first is None else first]
    while len(picks) < budget:
        promise = weight * (1 - cosine[:, picks].amax(1))
        promise[picks] = -torch.inf
        picks.append(int(promise.argmax()))
    return sorted(picks)


def most_likely(cosine, quality, budget):
    """The picks of the greedy search for the largest determinant; beyond the rank, by descending quality."""
    kernel = quality[:, None] * cosine * quality
    picks, last = [], 1.0
    for _ in range(budget):
        left = [n for n in range(len(cosine)) if n not in picks]
        volumes = {n: torch.linalg.det(kernel[picks + [n]][:, picks + [n]]).item() for n in left}
        best = max(left, key=volumes.get)
        if volumes[best] <= 1e-9 * last * quality[best] ** 2:
            best = max(left, key=lambda n: quality[n])
        else:
            last = volumes[best]
        picks.append(best)
    return sorted(picks)


def drawn(seed, tiles=1, tokens=16, width=24):
    """Tokens with a direction in common and a few wide dimensions, as a vision encoder makes them, and relevance."""
    generator = torch.Generator().manual_seed(seed)
    wide = torch.ones(width).index_fill(0, torch.arange(2), 30.0)
    shared = torch.randn(width, generator=generator)
    rows = (torch.randn(tiles, tokens, width, generator=generator) + shared) * wide
    return rows, torch.rand(tiles, tokens, generator=generator)


@pytest.mark.parametrize("form", ["plain", "standardised"])
@pytest.mark.parametrize("seed", range(4))
def test_centred_tokens_and_their_distinctiveness_are_those_of_the_plain_rule(form, seed):
    rows, _ = drawn(seed, tiles=3, tokens=40)
    away, distinctiveness = centred(VisualCues(None, rows), form)
    for tile, found, weight in zip(rows, away, distinctiveness, strict=True):
        cosine, expected = plainly(tile, form)
        assert torch.allclose(unit(found) @ unit(found).T, cosine.float(), atol=1e-5)
        assert torch.allclose(weight, expected.float(), atol=1e-5)


@pytest.mark.parametrize("form", ["plain", "standardised"])
@pytest.mark.parametrize("budget", [1, 2, 7, 15])
@pytest.mark.parametrize("seed", range(6))
def test_the_pruners_choose_by_both(form, budget, seed):
    rows, relevance = drawn(seed)
    cues = VisualCues(None, rows, relevance=relevance, sensitivity=relevance)
    cosine, weight = plainly(rows[0], form)
    share = (relevance[0].double() - relevance.min()) / (relevance.max() - relevance.min())
    expected = {
        "divprune": farthest(cosine, weight, budget),
        "cdpruner": most_likely(cosine, (share + 1e-6) * weight, budget),
        "zoo_prune": farthest(cosine, share * weight, budget, first=int((share * weight).argmax())),
    }
    for name in CENTRED:
        assert PRUNERS[name](budget, centered=form)(cues).tolist() == [expected[name]]


def test_what_the_centred_tokens_span_is_left_by_quality():
    rows, relevance = drawn(seed=1, tokens=30, width=6)  # centred, of rank 6
    cosine, weight = plainly(rows[0], "plain")
    share = (relevance[0].double() - relevance.min()) / (relevance.max() - relevance.min())
    keep = PRUNERS["cdpruner"](20, centered=True)(VisualCues(None, rows, relevance=relevance))
    assert keep.tolist() == [most_likely(cosine, (share + 1e-6) * weight, 20)]


def test_the_least_distinctive_token_comes_last_and_nothing_is_divided_by_zero():
    rows, relevance = drawn(seed=3)
    least = int(plainly(rows[0], "plain")[1].argmin())
    cues = VisualCues(None, rows, relevance=relevance, sensitivity=relevance)
    for name in CENTRED:
        assert least not in PRUNERS[name](15, centered=True)(cues)[0]


def test_what_all_tokens_share_makes_no_difference_once_it_is_gone():
    rows, _ = drawn(seed=3)
    away, _ = centred(VisualCues(None, rows), "plain")
    moved, _ = centred(VisualCues(None, rows + 20), "plain")
    assert torch.allclose(unit(away), unit(moved), atol=1e-4)


def test_tokens_that_are_alike_distinctive_count_alike():
    axes = torch.eye(16).unsqueeze(0)
    for form in ("plain", "standardised"):
        _, weight = centred(VisualCues(None, axes), form)
        assert weight.unique().numel() == 1 and weight.amin() > 0


def test_statistics_are_those_of_each_tile():
    rows, relevance = drawn(seed=4, tiles=3)
    cues = VisualCues(None, rows, relevance=relevance)
    for tile, keep in enumerate(PRUNERS["divprune"](5, centered=True)(cues)):
        assert torch.equal(PRUNERS["divprune"](5, centered=True)(VisualCues(None, rows[tile : tile + 1]))[0], keep)
    both = PRUNERS["divprune"](5, centered=True)(VisualCues(None, rows.view(1, 48, 24)))
    assert both.shape == (1, 5)


@each_centred
def test_tokens_before_a_merger_are_what_is_standardised(name):
    rows, relevance = drawn(seed=5)
    before, _ = drawn(seed=6, width=32)
    cues = VisualCues(None, rows, relevance=relevance, sensitivity=relevance)

    def keep(form, cues):
        return PRUNERS[name](6, centered=form)(cues).tolist()

    merged = replace(cues, premerger=before)
    assert keep(True, cues) == keep("plain", cues) == keep("plain", merged)
    assert keep(True, merged) == keep("standardised", merged) == keep("standardised", replace(cues, embeds=before))
    assert keep("standardised", cues) not in (keep("plain", cues), keep("standardised", merged))


@each_centred
def test_a_centred_pruner_takes_a_tile_at_a_time_and_says_what_it_reads(name):
    usual, cls = PRUNERS[name](8), PRUNERS[name]
    assert usual.centered is False and usual.needs == cls.needs and usual.scope == cls.scope and usual.newlines
    for form, before_merging in ((True, {"premerger"}), ("plain", set()), ("standardised", {"premerger"})):
        pruner = cls(8, centered=form)
        assert (pruner.scope, pruner.newlines, pruner.needs) == ("tile", False, cls.needs | before_merging)
        assert pruner != usual and pruner.with_budget(9) == cls(9, centered=form)
        assert pruner.with_budget(9).needs == pruner.needs


@each_centred
@pytest.mark.parametrize("form", ["both", 1, 0, None, 0.5, ["plain"]])
def test_another_form_is_refused(name, form):
    with pytest.raises(ValueError, match="centered must be False, True or one of plain, standardised, not"):
        PRUNERS[name](8, centered=form)


@each_centred
@pytest.mark.parametrize("form", [True, "plain", "standardised"])
def test_the_form_of_a_device_chooses_as_that_of_the_cpu(name, form, random_cues):
    for tokens in (16, 63, 300):
        cues = random_cues(seed=tokens, tiles=3, tokens=tokens, width=320)
        cues.embeds[0, 3], cues.premerger[1, 5], cues.embeds[2, 1] = torch.nan, 0.0, torch.inf
        for budget in (1, tokens // 4, tokens - 1):
            expected = PRUNERS[name](budget, centered=form)(cues)
            with as_on_a_device():
                assert torch.equal(PRUNERS[name](budget, centered=form)(cues), expected)


@each_centred
@pytest.mark.parametrize("form", [True, "plain"])
def test_more_tiles_take_no_more_operations_and_the_weights_few(name, form, random_cues):
    def operations(tiles, centered):
        given = random_cues(tiles=tiles, tokens=64)
        cues = {cue: getattr(given, cue).to("meta") for cue in ("embeds", "premerger", "relevance", "sensitivity")}
        with Counter() as counter:
            PRUNERS[name](16, centered=centered)(VisualCues(None, **cues))
        return counter.ops

    assert operations(1, form) == operations(5, form)
    weighing = 3 * 15 if name == "divprune" else 0  # without a kernel, for every token but the first
    assert 0 < operations(1, form) - operations(1, False) <= 45 + weighing


@each_centred
def test_a_centred_selection_is_one_graph_of_torch_compile(name, random_cues):
    torch.compiler.reset()
    pruner, given = PRUNERS[name](6, centered=True), random_cues(tiles=2, tokens=40)
    cues = [given.embeds, given.premerger, given.relevance, given.sensitivity]

    def choose(embeds, premerger, relevance, sensitivity):
        told = {"premerger": premerger, "relevance": relevance, "sensitivity": sensitivity}
        return pruner(VisualCues(None, embeds, **told))

    keep = torch.compile(choose, fullgraph=True, backend="eager")(*cues)
    with as_on_a_device():
        assert torch.equal(keep, choose(*cues))
    torch.compiler.reset()
