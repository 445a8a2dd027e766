"""The search for tokens that cover most, by whichever of its sources the benefits come from."""

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.pruners.search import cover, cover_softly, coverage, products
from llava.pruners.search.coverage import covering

from ..conftest import FORMS, as_on_a_device

# Unit vectors whose cosines are multiples of a quarter: exact in float32, and often tied.
DIRECTIONS = torch.cat([torch.eye(4), torch.cartesian_prod(*[torch.tensor([-0.5, 0.5])] * 4)])

each_form = pytest.mark.parametrize("form", FORMS)


def plainly(benefit, covered, budget, weight=None, bonus=None, barred=None):
    """The picks of one tile, every gain written down anew for every pick; equals go to the lower index.

    ``benefit`` has a row of each candidate, all are lists.
    """
    count = len(benefit)
    weight, bonus, barred = weight or [1.0] * count, bonus or [0.0] * count, barred or [False] * count
    covered, picks = list(covered), []

    def gain(n):
        return weight[n] * sum(max(0.0, b - c) for b, c in zip(benefit[n], covered, strict=True)) + bonus[n]

    while len(picks) < budget:
        left = [n for n in range(count) if n not in picks]
        left = [n for n in left if not barred[n]] or left
        picks.append(max(left, key=lambda n: (gain(n), -n)))
        covered = [max(b, c) for b, c in zip(benefit[picks[-1]], covered, strict=True)]
    return picks


def directions(seed, tiles=3, tokens=30):
    generator = torch.Generator().manual_seed(seed)
    return DIRECTIONS[torch.randint(len(DIRECTIONS), (tiles, tokens), generator=generator)], generator


@each_form
@pytest.mark.parametrize("largest", [products.LARGEST_GRAM, 4])
@pytest.mark.parametrize("nothing", [0.0, -1.0])
@pytest.mark.parametrize("budget", [1, 2, 9, 29])
def test_every_way_adds_tokens_in_the_order_of_the_plain_rule(budget, nothing, largest, form, monkeypatch):
    monkeypatch.setattr(products, "LARGEST_GRAM", largest)
    tiles, generator = directions(budget)
    weight, bonus, worth = (torch.randint(5, tiles.shape[:2], generator=generator) / 4 for _ in range(3))
    given = [(None, None, None), (weight, None, None), (None, bonus, None), (None, None, worth), (weight, bonus, worth)]
    for weights, bonuses, worths in given:
        factor = torch.ones_like(worth) if worths is None else worths
        expected = [
            plainly(
                (tile @ tile.T * factor[n]).tolist(),
                (nothing * factor[n]).tolist(),
                budget,
                None if weights is None else weights[n].tolist(),
                None if bonuses is None else bonuses[n].tolist(),
            )
            for n, tile in enumerate(tiles)
        ]
        with FORMS[form]():
            assert cover(tiles, budget, weights, bonuses, worths, nothing).tolist() == expected


@st.composite
def whole_numbers(draw):
    """Benefits to tokens and words, and what concerns candidates, of small integers: exact, and often tied."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    tiles, tokens, words = draw(st.integers(1, 3)), draw(st.integers(2, 200)), draw(st.integers(0, 9))
    highest = draw(st.integers(1, 6))

    def numbers(*shape):
        return torch.randint(highest + 1, shape, generator=generator).float()

    given = {"benefit": numbers(tiles, tokens, tokens + words), "covered": numbers(tiles, tokens + words) // 4}
    given["weight"] = numbers(tiles, tokens) if draw(st.booleans()) else None
    given["bonus"] = numbers(tiles, tokens) * 8 if draw(st.booleans()) else None
    given["barred"] = numbers(tiles, tokens) > highest / 2 if draw(st.booleans()) else None
    return given, draw(st.integers(1, min(25, tokens - 1)))


@each_form
@settings(max_examples=100, deadline=None)
@given(drawn=whole_numbers())
def test_few_gains_computed_anew_choose_as_all_do(form, drawn):
    given, budget = drawn
    rest = ("weight", "bonus", "barred")
    with FORMS[form]():
        picks = covering(given["benefit"], given["covered"], budget, *(given[name] for name in rest))
    for tile, found in enumerate(picks.tolist()):
        own = {name: None if values is None else values[tile].tolist() for name, values in given.items()}
        assert found == plainly(own["benefit"], own["covered"], budget, *(own[name] for name in rest))


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    tokens=st.integers(2, 300),
    words=st.integers(0, 20),
    power=st.sampled_from([0.0, 1.0, 8.0]),
    share=st.floats(0, 1),
)
def test_a_bound_holds_for_rounded_numbers_too(seed, tokens, words, power, share):
    generator = torch.Generator().manual_seed(seed)
    benefit = torch.rand(1, tokens, tokens + words, generator=generator) ** power
    weight = torch.rand(1, tokens, generator=generator)
    budget = max(1, int(share * (tokens - 1)))
    given = (benefit, torch.zeros(1, tokens + words), budget, weight, None, None)
    with as_on_a_device():
        anew = covering(*given)
    assert torch.equal(covering(*given), anew)


@each_form
@pytest.mark.parametrize("words", [1, 3, 40, 100])
def test_words_of_zeros_round_nothing(words, form):
    generator = torch.Generator().manual_seed(words)
    for tokens in (31, 64, 145):
        tiles = torch.randn(2, tokens, 20, generator=generator)
        said = torch.rand(2, tokens, words, generator=generator)
        with FORMS[form]():
            alone = cover_softly(tiles, tokens // 2, 0.2, 0.5, said)
            for more in (1, 7, 2 * tokens):
                filled = torch.cat([said, torch.zeros(2, tokens, more)], dim=2)
                assert torch.equal(cover_softly(tiles, tokens // 2, 0.2, 0.5, filled), alone)
    benefit = torch.rand(3, 50, 50 + words, generator=generator)
    sums = coverage._sum(benefit.clone(), 50)
    for more in (1, 7, 120):
        assert torch.equal(coverage._sum(torch.cat([benefit, torch.zeros(3, 50, more)], dim=2), 50), sums)


@each_form
@pytest.mark.parametrize("largest", [products.LARGEST_GRAM, 4])
def test_barred_tokens_come_last_and_cover_all_the_same(largest, form, monkeypatch):
    monkeypatch.setattr(products, "LARGEST_GRAM", largest)
    tiles = torch.randn(3, 40, 48, generator=torch.Generator().manual_seed(1))
    barred = torch.zeros(3, 40, dtype=torch.bool)
    barred[0, :30] = barred[1, 5] = True  # 10, 39 and 40 that are not
    with FORMS[form]():
        picks = cover_softly(tiles, 39, 0.2, 0.5, None, barred)
    assert not barred[0][picks[0, :10]].any() and barred[0][picks[0, 10:]].all()
    assert 5 not in picks[1].tolist()
    with FORMS[form]():
        assert torch.equal(picks[2:], cover_softly(tiles[2:], 39, 0.2, 0.5))
        free = cover_softly(tiles[:1], 9, 0.2, 0.5, None, barred[:1])
    assert torch.equal(free, picks[:1, :9])


@each_form
def test_a_softmax_is_what_it_says(form):
    tiles = torch.randn(2, 25, 12, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    words = torch.rand(2, 25, 4, generator=torch.Generator().manual_seed(8)).double()
    unit = tiles / tiles.norm(dim=2, keepdim=True)
    shares = (unit @ unit.mT / 0.3).softmax(dim=2) * 0.7 / 25  # a row of each that is covered
    benefit = torch.cat([shares.mT, words], dim=2)
    expected = [plainly(tile.tolist(), [0.0] * 29, 20) for tile in benefit]
    with FORMS[form]():
        assert cover_softly(tiles.float(), 20, 0.3, 0.7, words.float()).tolist() == expected


def test_without_any_direction_the_first_are_chosen():
    for form in FORMS.values():
        with form():
            assert cover(torch.zeros(2, 9, 4), 4).tolist() == [[0, 1, 2, 3]] * 2
            assert cover_softly(torch.zeros(2, 9, 4), 4, 0.001, 0.5).tolist() == [[0, 1, 2, 3]] * 2


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), tokens=st.integers(3, 9), budget=st.integers(1, 4), width=st.integers(1, 4))
def test_what_is_covered_is_at_least_63_percent_of_the_best_there_is(seed, tokens, budget, width):
    tile = torch.randn(1, tokens, width, generator=torch.Generator().manual_seed(seed))
    unit = torch.nn.functional.normalize(tile[0], dim=1)
    budget = min(budget, tokens - 1)

    def value(chosen):
        return (unit @ unit[list(chosen)].T).amax(dim=1).clamp(min=0).sum().item()

    best = max(map(value, combinations(range(tokens), budget)))
    assert value(cover(tile, budget)[0].tolist()) >= (1 - 1 / torch.e) * best - 1e-4
