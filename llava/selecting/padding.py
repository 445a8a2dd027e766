"""Where a picture that was padded to a square shows nothing of itself."""

import torch
from torch import Tensor


def padding_patches(image_size: tuple[int, int], side: int = 336, patch: int = 14) -> Tensor:
    """Which patches lie wholly inside the border that makes a picture square.

    Args:
        image_size: width and height of the picture in pixels.
        side: of the square that the encoder reads, in pixels.
        patch: side of a patch.

    Returns:
        (n,) bool on the CPU, n = (side // patch) ** 2, in raster order.
    """
    width, height = (int(length) for length in image_size)
    shown = int(round(min(width, height) * side / max(width, height)))
    before = (side - shown) // 2
    after = side - shown - before
    lines = torch.arange(side // patch)
    empty = (lines < before // patch) | (lines >= side // patch - after // patch)
    grid = torch.zeros(len(lines), len(lines), dtype=torch.bool)
    if width > height:
        grid[empty] = True
    elif height > width:
        grid[:, empty] = True
    return grid.flatten()
