import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from llava.eval.pictures.gallery import dropped_path


def covered(path, shape):
    """The cells under a path of rectangles, one row high."""
    cells = np.zeros(shape, dtype=int)
    for rectangle in path.split("M")[1:]:
        corner, _, size = rectangle.removesuffix("z").partition("h")
        column, row = map(int, corner.split())
        width = int(size.split("v")[0])
        assert size == f"{width}v1h-{width}"
        cells[row, column : column + width] += 1
    return cells


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_the_path_covers_each_dropped_patch_once_and_no_kept_one(mask):
    assert (covered(dropped_path(mask), mask.shape) == ~mask).all()


@given(st.integers(1, 30))
def test_a_row_of_dropped_patches_is_one_rectangle(width):
    assert dropped_path(np.zeros((1, width), dtype=bool)) == f"M0 0h{width}v1h-{width}z"
