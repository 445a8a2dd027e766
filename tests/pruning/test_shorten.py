"""Shortening prompts: what is left, where it stands, and how what follows is numbered."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llava.pruning.shorten import Shortened

REAL = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]]).bool()
KEEP = torch.tensor([[0, 0, 1, 0, 0, 1], [1, 0, 1, 1, 0, 1]]).bool()
COUNTED = (REAL.cumsum(dim=1) - 1).clamp_min(0)  # as ``generate`` numbers a padded batch


@pytest.fixture
def short():
    return Shortened.of(KEEP, REAL)


def test_what_is_left_stands_at_the_right(short):
    assert short.width == 4
    assert short.order[0, 2:].tolist() == [2, 5]
    assert short.order[1].tolist() == [0, 2, 3, 5]
    assert short.valid.tolist() == [[False, False, True, True], [True] * 4]
    assert short.dropped.tolist() == [[2], [2]]
    columns = torch.arange(6.0).view(1, 6, 1).expand(2, 6, 3) + 1
    assert short.take(columns)[..., 0].tolist() == [[0, 0, 3, 6], [1, 3, 4, 6]]
    assert short.mask(6).tolist() == [[0, 0, 1, 1, 1, 1], [1] * 6]
    assert short.unpruned_mask(7).tolist() == [[0, 0, 1, 1, 1, 1, 1], [1] * 7]


def test_positions_are_numbered_anew_or_stay(short):
    assert short.positions(COUNTED, compact=True).tolist() == [[0, 0, 0, 1], [0, 1, 2, 3]]
    assert short.positions(COUNTED, compact=False)[0, 2:].tolist() == [0, 3]
    assert short.positions(COUNTED, compact=False)[1].tolist() == [0, 2, 3, 5]
    assert short.positions(None, compact=False)[0, 2:].tolist() == [2, 5]  # columns, as the model itself counts them


@pytest.mark.parametrize("planes", [3, 4])
def test_planes_of_positions_are_shortened_alike(short, planes):
    """Of four planes the first numbers the tokens and tells packed sequences apart: it must not have gaps."""
    positions = torch.stack([COUNTED + 10 * plane for plane in range(planes)])
    left = short.positions(positions, compact=False)
    assert left.shape == (planes, 2, 4)
    for plane in range(planes - 3, planes):
        assert left[plane, 0, 2:].tolist() == [10 * plane, 3 + 10 * plane]
        assert left[plane, 1].tolist() == [10 * plane + position for position in (0, 2, 3, 5)]
    if planes == 4:
        assert left[0].tolist() == [[0, 0, 0, 1], [0, 1, 2, 3]]


@pytest.mark.parametrize("counted", [True, False])
def test_new_tokens_go_on_where_the_prompt_ended(short, counted):
    """``generate`` gives the positions of an unpruned run, a loop written by hand gives none."""
    for past, first in ((4, 0), (6, 2)):  # nothing and two tokens behind the prompt
        unpruned = COUNTED[:, -1:] + 1 + first + torch.arange(3) if counted else None
        compact = short.next_positions(unpruned, 3, past, compact=True)
        assert compact.tolist() == [[2 + first, 3 + first, 4 + first], [4 + first, 5 + first, 6 + first]]
        original = short.next_positions(unpruned, 3, past, compact=False)
        if counted:
            assert torch.equal(original, unpruned)
        else:  # behind column 5
            assert original.tolist() == [[6 + first, 7 + first, 8 + first]] * 2


@st.composite
def batches(draw):
    """A left-padded batch with at least one token left of each prompt: keep and real, (B, L)."""
    length = draw(st.integers(1, 12))
    rows = []
    for _ in range(draw(st.integers(1, 4))):
        padding = draw(st.integers(0, length - 1))
        kept = draw(st.lists(st.booleans(), min_size=length - padding, max_size=length - padding))
        kept[-1] = True
        rows.append((padding, [False] * padding + kept))
    real = torch.tensor([[column >= padding for column in range(length)] for padding, _ in rows])
    return torch.tensor([kept for _, kept in rows]), real


@given(batches())
def test_each_row_is_shortened_as_it_would_be_alone(masks):
    keep, real = masks
    short = Shortened.of(keep, real)
    length = keep.shape[1]
    embeds = torch.randn(*keep.shape, 3)
    positions = (real.cumsum(dim=1) - 1).clamp_min(0)
    taken, compact = short.take(embeds), short.positions(positions, compact=True)
    original = short.positions(positions, compact=False)
    following = {way: short.next_positions(None, 2, short.width, way) for way in (True, False)}
    assert short.width == keep.sum(dim=1).max()
    for row, kept in enumerate(keep):
        count = int(kept.sum())
        assert torch.equal(taken[row, short.width - count :], embeds[row, kept])
        assert not taken[row, : short.width - count].any()
        assert compact[row, short.width - count :].tolist() == list(range(count))
        assert torch.equal(original[row, short.width - count :], positions[row, kept])
        assert short.mask(short.width)[row].sum() == count
        assert short.dropped[row] == real[row].sum() - count
        assert following[True][row].tolist() == [count, count + 1]
        assert following[False][row].tolist() == [length, length + 1]


def test_keeping_all_leaves_a_padded_batch_as_it_was():
    short = Shortened.of(REAL, REAL)
    embeds = torch.randn(2, 6, 3)
    assert torch.equal(short.take(embeds)[REAL], embeds[REAL])
    assert torch.equal(short.mask(6), REAL.long())
    assert torch.equal(short.positions(COUNTED, compact=True)[REAL], COUNTED[REAL])
