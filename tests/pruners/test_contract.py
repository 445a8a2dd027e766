"""What every registered pruner promises, whatever it is given. A new pruner is tested by being registered."""

import dataclasses
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.pruners import PRUNERS, VisualCues
from llava.pruners.cues import CUES, OPTIONAL_CUES, PER_TOKEN_VECTORS, QUESTION_CUES, TEXT_FORMS

from .conftest import FORMS

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
KINDS = ("plain", "few dimensions", "duplicates", "small integers", "zero rows", "constant", "NaN", "infinite", "huge")

METHODS = PRUNERS | {
    f"{name} centred {form}": partial(PRUNERS[name], centered=form)
    for name in ("cdpruner", "divprune", "zoo_prune")
    for form in (True, "plain", "standardised")
}
READ_BACK = {"prunesid"}  # pruners that wait for the device: their docstrings say so

each_pruner = pytest.mark.parametrize("name", METHODS)
each_form = pytest.mark.parametrize("form", FORMS)


def spoilt(kind, shape, generator):
    """Random tokens (B, N, D) with one kind of trouble."""
    x = torch.randn(shape, generator=generator)
    tokens, width = shape[1:]
    some = torch.rand(shape[:2], generator=generator) < 0.4
    if kind == "few dimensions":
        x = x[..., :2] @ torch.randn(x[..., :2].shape[-1], width, generator=generator)
    elif kind == "duplicates":
        x = x[:, torch.randint(tokens // 2 + 1, (tokens,), generator=generator)]
    elif kind == "small integers":
        x = x.round().clamp(-1, 1)
    elif kind == "zero rows":
        x[some] = 0.0
    elif kind == "constant":
        x = torch.ones(shape)
    elif kind == "NaN":
        x[some] = torch.nan
    elif kind == "infinite":
        x[some] *= torch.inf
    elif kind == "huge":
        x = x * 1e37
    return x


@st.composite
def troubled_cues(draw):
    """Cues of up to three images, whose tiles are mixed and whose labels have gaps."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    tiles, tokens, width = draw(st.integers(1, 4)), draw(st.integers(1, 40)), draw(st.integers(1, 20))
    dtype = draw(st.sampled_from(DTYPES))
    cues = {
        name: spoilt(draw(st.sampled_from(KINDS)), (tiles, tokens, depth), generator).to(dtype)
        for name, depth in {name: width if name in PER_TOKEN_VECTORS else 1 for name in CUES}.items()
    }
    cues |= {name: cues[name].squeeze(-1) for name in CUES if name not in PER_TOKEN_VECTORS}
    cues = {name: cue for name, cue in cues.items() if name not in OPTIONAL_CUES or draw(st.booleans())}
    words, segments, places = draw(st.integers(1, 5)), draw(st.integers(1, 2)), draw(st.integers(1, 9))
    forms = {"text_tokens": (tiles, words, width), "text_sequence": (tiles, segments * places, width)}
    texts = {
        name: spoilt(draw(st.sampled_from(KINDS)), form, generator).to(dtype)
        for name, form in forms.items()
        if draw(st.booleans())
    }
    if "text_sequence" in texts:
        texts["text_sequence"] = texts["text_sequence"].unflatten(1, (segments, places))
    rows = draw(st.sampled_from([side for side in range(1, tokens + 1) if tokens % side == 0]))
    labels = draw(st.lists(st.integers(0, 2), min_size=tiles, max_size=tiles))
    return VisualCues(**cues, **texts, grid=(rows, tokens // rows), image_index=torch.tensor(labels) * 7 - 3)


def only(cues, rows):
    """The tiles of the given rows."""
    given = {name: getattr(cues, name) for name in (*CUES, *TEXT_FORMS, "image_index")}
    return dataclasses.replace(cues, **{name: cue[rows] for name, cue in given.items() if cue is not None})


@each_form
@each_pruner
@settings(max_examples=60, deadline=None)
@given(cues=troubled_cues(), budget=st.integers(0, 45))
def test_keeps_exactly_the_budget_in_ascending_order(name, form, cues, budget):
    with FORMS[form]():
        keep = METHODS[name](budget)(cues)
    tiles, tokens = cues.shape
    assert keep.dtype == torch.int64 and keep.shape == (tiles, min(budget, tokens))
    assert (keep.diff(dim=1) > 0).all()
    assert ((keep >= 0) & (keep < tokens)).all()


@each_form
@each_pruner
@settings(max_examples=30, deadline=None)
@given(cues=troubled_cues(), budget=st.integers(1, 30), order=st.permutations(range(3)))
def test_permuting_the_images_permutes_the_choice(name, form, cues, budget, order):
    images = torch.tensor(order)[(cues.image_index + 3) // 7]
    rows = images.argsort(stable=True)  # tiles of one image stay in order
    pruner = METHODS[name](budget)
    with FORMS[form]():
        assert torch.equal(pruner(only(cues, rows)), pruner(cues)[rows])


@each_form
@each_pruner
@settings(max_examples=30, deadline=None)
@given(cues=troubled_cues(), budget=st.integers(1, 30))
def test_an_image_in_a_batch_is_pruned_as_if_alone(name, form, cues, budget):
    pruner = METHODS[name](budget)
    with FORMS[form]():
        in_batch = pruner(cues)
        for image in cues.image_index.unique():
            rows = cues.image_index == image
            alone = dataclasses.replace(only(cues, rows), image_index=None)
            assert torch.equal(pruner(alone), in_batch[rows])


@each_pruner
def test_reads_only_the_cues_it_declares(name, random_cues):
    cues, pruner = random_cues(tiles=2), METHODS[name](5)
    read = pruner.needs or {"embeds"}
    declared = {cue: getattr(cues, cue) if cue in read else None for cue in (*CUES, *TEXT_FORMS)}
    assert torch.equal(pruner(VisualCues(**declared)), pruner(cues))


@each_pruner
def test_names_a_cue_that_is_missing(name, random_cues):
    pruner = METHODS[name](5)
    for cue in pruner.needs - OPTIONAL_CUES:
        with pytest.raises(ValueError, match=cue):
            pruner(dataclasses.replace(random_cues(), **{cue: None}))


@each_pruner
def test_works_without_text(name, random_cues):
    keep = METHODS[name](5)(dataclasses.replace(random_cues(tiles=2), **dict.fromkeys(OPTIONAL_CUES & QUESTION_CUES)))
    assert keep.shape == (2, 5) and (keep.diff(dim=1) > 0).all()


@each_pruner
def test_a_ratio_and_the_number_it_comes_to_choose_alike(name, random_cues):
    cues = random_cues()
    assert torch.equal(METHODS[name](keep_ratio=0.25)(cues), METHODS[name](4)(cues))


@each_pruner
def test_autocast_and_gradients_change_nothing(name, random_cues):
    cues = random_cues(tiles=2, tokens=40, width=32)
    expected = METHODS[name](9)(cues)
    for cue in CUES:
        getattr(cues, cue).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(METHODS[name](9)(cues), expected)


@each_pruner
def test_leaves_the_cues_as_they_were(name, random_cues):
    cues = random_cues(tiles=2, width=32)
    before = {cue: getattr(cues, cue).clone() for cue in CUES}
    METHODS[name](5)(cues)
    assert all(torch.equal(getattr(cues, cue), before[cue]) for cue in CUES)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in READ_BACK])
def test_never_reads_a_value_back_to_the_host(name):
    def on_meta(*shape):
        return torch.empty(shape, device="meta")

    cues = {cue: on_meta(5, 50, 8) if cue in PER_TOKEN_VECTORS else on_meta(5, 50) for cue in CUES}
    cues |= {"text_tokens": on_meta(5, 3, 8), "text_sequence": on_meta(5, 1, 77, 8)}
    cues = VisualCues(**cues, grid=(5, 10), image_index=torch.empty(5, dtype=torch.int64, device="meta"))
    keep = METHODS[name](7)(cues)
    assert keep.device.type == "meta" and keep.shape == (5, 7)
    tokens = METHODS[name](7).apply(cues.features, keep, cues)
    assert tokens.device.type == "meta" and tokens.shape == (5, 7, 8)


@each_pruner
@settings(max_examples=30, deadline=None)
@given(cues=troubled_cues(), budget=st.integers(0, 45))
def test_the_tokens_of_an_image_in_a_batch_are_those_it_has_alone(name, cues, budget):
    pruner = METHODS[name](budget)
    keep = pruner(cues)
    tokens = pruner.apply(cues.features, keep, cues)
    assert tokens.shape == (*keep.shape, cues.features.shape[2]) and tokens.dtype == cues.features.dtype
    for image in cues.image_index.unique():
        rows = cues.image_index == image
        alone = pruner.apply(cues.features[rows], keep[rows], only(cues, rows))
        assert torch.equal(alone.nan_to_num(nan=9.0), tokens[rows].nan_to_num(nan=9.0))


@each_pruner
@settings(max_examples=30, deadline=None)
@given(cues=troubled_cues(), budget=st.integers(1, 45))
def test_merging_is_a_finite_sum_and_keeping_all_merges_nothing(name, cues, budget):
    pruner, tokens = METHODS[name](budget), cues.shape[1]
    ones = torch.ones(*cues.shape, 1)
    keep = pruner(cues)
    shares = pruner.apply(ones, keep, cues)
    assert shares.isfinite().all()
    if budget >= tokens or not pruner.merges:
        assert torch.equal(shares, ones[:, :budget])
