"""What of an image's sequence is chosen from by itself."""

import torch

from llava.model.layout import ImageLayout
from llava.model.tiles import NEWLINE


def test_as_many_newlines_as_patches_that_were_cut_are_told_from_whole_tiles():
    order = torch.tensor([0, 1, 2, 3, 6, 7, NEWLINE, 8, 9, NEWLINE, 10, 11, NEWLINE, 12, 13, NEWLINE])
    base, grid = ImageLayout(order, tiles=4, first_tile=0, patches=4).parts
    assert base.positions.tolist() == [0, 1, 2, 3]
    assert grid.positions.tolist() == [4, 5, 7, 8, 10, 11, 13, 14] and grid.tiles == 3
