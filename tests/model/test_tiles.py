"""The order of an image's tokens, against the releases' golden files and by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch

from llava.model.tiles import NEWLINE, reading_order, unpad_image

GOLDEN = sorted((Path(__file__).parent.parent / "golden").glob("anyres_*.npz"))


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_golden_order_of_the_kept_tokens(file):
    with np.load(file) as golden:
        patches = golden["keep_mask"].shape[1]
        merge_type = str(golden["merge_type"]).removesuffix("_unpad")  # the releases never unpad
        keep = torch.from_numpy(golden["keep_mask"]).flatten()
        first, orders = 0, []
        for tiles, grid in zip(golden["crops_per_image"].tolist(), golden["grid_wh"].tolist(), strict=True):
            order = reading_order(tiles, patches, merge_type, tuple(grid)) + first * patches
            orders.append(order[keep[order]])
            first += tiles
        assert [len(order) for order in orders] == golden["lengths"].tolist()
        assert torch.cat(orders).tolist() == golden["order"].tolist()


def test_there_are_golden_files():
    assert len(GOLDEN) == 7


def test_spatial_stitches_the_rows_of_neighbouring_tiles():
    # base 0-3; left tile 4-7, right tile 8-11, each [[a, b], [c, d]]
    order = reading_order(tiles=3, patches=4, merge_type="spatial", grid=(2, 1))
    assert order.tolist() == [0, 1, 2, 3, 4, 5, 8, 9, 6, 7, 10, 11]


def test_flat_reads_tile_after_tile():
    assert reading_order(3, 4, "flat", grid=(2, 1)).tolist() == list(range(12))


def test_unpad_ends_every_row_with_a_newline():
    order = reading_order(3, 4, "spatial_unpad", grid=(2, 1), size=(200, 100))
    assert order.tolist() == [0, 1, 2, 3, 4, 5, 8, 9, NEWLINE, 6, 7, 10, 11, NEWLINE]


def test_unpad_drops_the_rows_that_show_padding():
    # An image of 4:1 on a canvas of 4 x 4 patches covers one row; (4 - 1) // 2 rows go from either side.
    order = reading_order(5, 4, "spatial_unpad", grid=(2, 2), size=(400, 100))
    stitched = torch.tensor([[4, 5, 8, 9], [6, 7, 10, 11], [12, 13, 16, 17], [14, 15, 18, 19]])
    assert order[4:].view(-1, 5)[:, :4].tolist() == stitched[1:3].tolist()


def test_unpad_ends_a_single_tile_with_a_newline():
    assert reading_order(1, 4, "spatial_unpad").tolist() == [0, 1, 2, 3, NEWLINE]


@pytest.mark.parametrize(
    ("size", "shape"), [((100, 100), (6, 6)), ((300, 100), (2, 6)), ((100, 300), (6, 2)), ((600, 400), (4, 6))]
)
def test_unpad_image_keeps_the_part_that_the_image_covers(size, shape):
    assert unpad_image(torch.zeros(1, 6, 6), size).shape[1:] == shape


def test_a_grid_that_does_not_fit_the_tiles_is_an_error():
    with pytest.raises(ValueError, match="4 tiles needs a grid of 3"):
        reading_order(4, 4, "spatial", grid=(2, 2))


def test_an_unknown_merge_type_lists_the_known_ones():
    with pytest.raises(ValueError, match="flat, spatial, spatial_unpad"):
        reading_order(1, 4, "maxpool")
