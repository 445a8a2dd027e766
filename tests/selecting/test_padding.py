import numpy as np
import pytest
import torch
from PIL import Image

from llava.mm_utils import expand2square
from llava.selecting.padding import padding_patches


def grid(size, **shape):
    found = padding_patches(size, **shape)
    side = int(len(found) ** 0.5)
    assert found.shape == (side * side,) and found.dtype == torch.bool and found.device.type == "cpu"
    return found.view(side, side)


def test_a_wide_picture_has_a_border_above_and_below():
    rows = grid((640, 480))  # 252 of 336 pixels are shown, 42 are border on either side: three patches
    assert rows[:, 0].tolist() == [True] * 3 + [False] * 18 + [True] * 3
    assert torch.equal(rows, rows[:, :1].expand(24, 24))


def test_a_tall_picture_has_a_border_left_and_right():
    assert torch.equal(grid((480, 640)), grid((640, 480)).T)


@pytest.mark.parametrize("size", [(336, 336), (7, 7), (1000, 1000)])
def test_a_square_picture_has_none(size):
    assert not padding_patches(size).any()


def test_a_patch_that_shows_a_part_of_the_picture_is_no_border():
    assert not padding_patches((336, 310)).any()  # 13 pixels on either side
    first, last = grid((336, 309))[[0, 23], 0].tolist()  # 13 above, 14 below
    assert (first, last) == (False, True)
    assert grid((375, 500))[0].sum() == 6 and grid((640, 427))[:, 0].sum() == 8


@pytest.mark.parametrize("size", [(90, 70), (33, 100), (128, 31), (97, 100)])
def test_other_squares_and_patches(size):
    """What padding a white picture with black leaves all black: the same, but for a line of patches at most, since
    pixels are rounded otherwise when a picture is scaled after it was padded."""
    square = expand2square(Image.new("L", size, 255), 0).resize((32, 32), Image.Resampling.NEAREST)
    pixels = torch.from_numpy(np.array(square))
    black = pixels.unfold(0, 4, 4).unfold(1, 4, 4).flatten(2).amax(dim=2) == 0  # (8, 8)
    assert (black ^ grid(size, side=32, patch=4)).sum() <= 8
