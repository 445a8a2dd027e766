"""Sets of which not all pairs are held at once: the same choice, over rows of the matrix."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llava.pruners import PRUNERS, VisualCues
from llava.pruners.search import coverage, dpp, duplicates, farthest, products, rows
from llava.pruners.search.rows import NearestNeighbours, ProductRows

METHODS = ("cdpruner", "divprune", "vispruner", "mfpruner", "scope", "mmtok", "eadp")
FILLING = ("cdpruner", "scope", "mmtok", "eadp")
"""Methods whose last picks gain next to nothing where tokens have few directions: which is best is rounding then."""


@pytest.fixture
def by_rows(monkeypatch):
    """A function that chooses with a pruner as if no tile but a tiny one could hold all its pairs."""

    def choose(pruner, cues, limit=4):
        with monkeypatch.context() as patch:
            patch.setattr(products, "LARGEST_GRAM", limit)
            return pruner(cues)

    return choose


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    tiles=st.integers(1, 3),
    tokens=st.integers(5, 150),
    width=st.integers(2, 70),
    share=st.floats(0.01, 0.99),
)
def test_choose_what_the_whole_matrix_chooses(name, by_rows, random_cues, seed, tiles, tokens, width, share):
    cues = random_cues(seed=seed, tiles=tiles, tokens=tokens, width=max(width, tokens if name in FILLING else 0))
    pruner = PRUNERS[name](max(1, int(share * tokens)))
    assert torch.equal(by_rows(pruner, cues), pruner(cues))


@pytest.mark.parametrize("name", METHODS)
def test_choose_what_the_whole_matrix_chooses_of_many_tokens(name, by_rows, random_cues):
    cues = random_cues(seed=5, tiles=2, tokens=1300, width=64)
    for budget in (30, 400):
        assert torch.equal(by_rows(PRUNERS[name](budget), cues), PRUNERS[name](budget)(cues))


@pytest.mark.parametrize("name", METHODS)
def test_equal_tokens_are_each_chosen_at_most_once(name, by_rows, random_cues):
    drawn = random_cues(tokens=40)
    cues = VisualCues(*(cue[:, torch.arange(40) // 8] for cue in (drawn.features, drawn.embeds)), drawn.cls_attention)
    for budget in (3, 5, 17, 39):
        assert by_rows(PRUNERS[name](budget), cues).diff(dim=1).min() > 0


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("budget", [7, 40])
def test_nothing_is_read_back_to_the_host_elsewhere(name, budget, by_rows):
    def on_meta(*shape):
        return torch.empty(shape, device="meta")

    cues = VisualCues(on_meta(2, 50, 8), on_meta(2, 50, 8), on_meta(2, 50), on_meta(2, 50))
    keep = by_rows(PRUNERS[name](budget), cues)
    assert keep.device.type == "meta" and keep.shape == (2, budget)


@pytest.mark.parametrize("name", ["cdpruner", "divprune", "vispruner", "scope", "mmtok", "eadp"])
def test_what_other_devices_compute_is_the_same_choice(name, by_rows, random_cues, monkeypatch):
    cues = random_cues(seed=9, tiles=2, tokens=120, width=128)
    pruners = [PRUNERS[name](budget) for budget in (9, 50, 119)]
    expected = [pruner(cues) for pruner in pruners]
    for module in (coverage, dpp, duplicates, farthest):
        monkeypatch.setattr(module, "on_cpu", lambda tensor: False)
    for pruner, keep in zip(pruners, expected, strict=True):
        assert torch.equal(by_rows(pruner, cues), keep)


def test_rows_are_those_of_the_whole_product_however_they_are_asked_for():
    generator = torch.Generator().manual_seed(0)
    tokens, weight = torch.randn(60, 24, generator=generator), torch.rand(60, generator=generator)
    whole = (tokens * weight.unsqueeze(1)) @ (tokens * weight.unsqueeze(1)).T
    product = ProductRows(tokens, weight, budget=60)
    promise = torch.rand(60, generator=generator)
    for pick in torch.randperm(60, generator=generator).tolist():
        row = product.take(pick, promise)
        promise[pick] = -torch.inf
        assert torch.allclose(row[:60], whole[pick], atol=1e-5)
        assert row[60:].tolist() == [0.0] * 4


@pytest.mark.parametrize("listed", [1, 3, 32])
def test_the_nearest_of_any_half_of_a_shrinking_pool_is_found(listed, monkeypatch):
    monkeypatch.setattr(rows, "LISTED", listed)
    generator = torch.Generator().manual_seed(1)
    unit = torch.nn.functional.normalize(torch.randn(200, 16, generator=generator), dim=1)
    whole = unit @ unit.T
    near, pool = NearestNeighbours(unit), torch.arange(200)
    while len(pool) > 2:
        pool = pool[torch.randperm(len(pool), generator=generator)[: len(pool) - 7]] if len(pool) > 8 else pool[:2]
        first, second = pool[0::2], pool[1::2]
        found = near.cosine(first.unsqueeze(0), second.unsqueeze(0))
        assert torch.allclose(found[0], whole[first][:, second].amax(dim=1), atol=1e-6)
