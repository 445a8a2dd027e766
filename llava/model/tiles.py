"""Where the tokens of an image's tiles stand in the sequence that the language model reads.

Everything here is integer bookkeeping on the CPU: an image's merged sequence is described by the *order* of its
patches, and applied to embeddings by one gather. Patch ``p`` of tile ``t`` has the flat id ``t * N + p``; tile 0 is
the base (the whole image, resized), the others the cells of the grid, row by row.
"""

import math

import torch
from torch import Tensor

NEWLINE = -1  # stands in an order for the learned newline token


def unpad_image(tensor: Tensor, original_size: tuple[int, int]) -> Tensor:
    """Cut away the rows or columns that only show the padding of an image.

    Args:
        tensor: (C, H, W), a map over the padded image.
        original_size: (width, height) of the image before padding, in pixels.

    Returns:
        (C, H', W'): the map over the image alone.
    """
    width, height = original_size
    padded_height, padded_width = tensor.shape[1:]
    # The scale is rounded before it is applied, as LLaVA does: int(h * W / w) differs by one row for some sizes.
    if width / height > padded_width / padded_height:
        margin = (padded_height - int(height * (padded_width / width))) // 2
        return tensor[:, margin : padded_height - margin, :]
    margin = (padded_width - int(width * (padded_height / height))) // 2
    return tensor[:, :, margin : padded_width - margin]


def grid_ids(side: int, grid: tuple[int, int]) -> Tensor:
    """Return the flat ids of all grid tiles, laid out as the patches of the stitched image.

    Args:
        side: patches along the side of a tile.
        grid: (columns, rows) of tiles, as ``get_anyres_image_grid_shape`` returns it.

    Returns:
        int64 (rows * side, columns * side).
    """
    columns, rows = grid
    first = side * side  # tile 0 is the base
    ids = torch.arange(first, first + rows * columns * side * side)
    return ids.view(rows, columns, side, side).transpose(1, 2).reshape(rows * side, columns * side)


def reading_order(
    tiles: int, patches: int, merge_type: str, grid: tuple[int, int] | None = None, size: tuple[int, int] | None = None
) -> Tensor:
    """Return the order in which the language model reads the patches of one image.

    Args:
        tiles: number of tiles, the base included.
        patches: tokens of a tile (N), a square number for the spatial types.
        merge_type: LLaVA's ``mm_patch_merge_type``: ``flat`` (tile after tile), ``spatial`` (base, then the stitched
            grid row by row) or ``spatial_unpad`` (the same without the padding, a newline after every row).
        grid: (columns, rows) of tiles; needed by the spatial types when there are several tiles.
        size: (width, height) of the image in pixels; needed by ``spatial_unpad`` when there are several tiles.

    Returns:
        int64 (L,): flat patch ids, ``NEWLINE`` where the newline token stands.
    """
    if merge_type not in ("flat", "spatial", "spatial_unpad"):
        raise ValueError(f"mm_patch_merge_type {merge_type!r} is not one of flat, spatial, spatial_unpad")
    unpad = merge_type == "spatial_unpad"
    if tiles == 1 or merge_type == "flat":
        order = torch.arange(tiles * patches)
        return torch.cat([order, torch.tensor([NEWLINE])]) if unpad else order
    if grid is None or grid[0] * grid[1] != tiles - 1:
        raise ValueError(f"an image of {tiles} tiles needs a grid of {tiles - 1}, not {grid}: are image_sizes right?")
    side = math.isqrt(patches)
    if side * side != patches:
        raise ValueError(f"mm_patch_merge_type {merge_type!r} needs square tiles, not tiles of {patches} tokens")
    stitched = grid_ids(side, grid)
    if unpad:
        stitched = unpad_image(stitched.unsqueeze(0), size)[0]
        stitched = torch.cat([stitched, torch.full((len(stitched), 1), NEWLINE)], dim=1)
    return torch.cat([torch.arange(patches), stitched.flatten()])
