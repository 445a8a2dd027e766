"""Which patches of an image the last call of a model kept, as pictures of what the vision encoder saw."""

from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from llava.eval.pictures.figures import PATCH_PIXELS, fade_dropped
from llava.mm_utils import expand2square, get_anyres_image_grid_shape, resize_and_pad_image, to_rgb
from llava.model.tiles import NEWLINE, grid_ids, reading_order

LONGEST_SIDE = 4096  # pixels of a picture that is drawn


def pictures(model: Any, image_processor: Any, image: Image.Image) -> list[np.ndarray]:
    """What the encoder saw of the one image of the model's last call, dropped patches faded.

    Returns:
        One picture (H, W, 3) uint8, or two of a LLaVA-NeXT model: the base tile, and the tiles of the grid together.
        Padding that LLaVA-NeXT's native layout leaves out counts as dropped.
    """
    keep = None if model.last_prune.keep is None else model.last_prune.keep[0]
    seen = views(image, image_processor, model.config)
    masks = kept_masks(keep, image.size, model)
    return [fade_dropped(view, mask, PATCH_PIXELS // len(seen)) for view, mask in zip(seen, masks, strict=True)]


def views(image: Image.Image, image_processor: Any, config: Any) -> list[Image.Image]:
    """The image as ``process_images`` hands it to the encoder: one square, or the base tile and the grid's canvas."""
    image, side = to_rgb(image), image_processor.size["shortest_edge"]
    aspect_ratio = getattr(config, "image_aspect_ratio", None)
    if aspect_ratio == "pad":
        if max(image.size) > LONGEST_SIDE:  # a square of a long screenshot's side would take gigabytes
            image = ImageOps.contain(image, (LONGEST_SIDE, LONGEST_SIDE))
        return [expand2square(image, tuple(int(255 * channel) for channel in image_processor.image_mean))]
    if aspect_ratio == "anyres":
        columns, rows = get_anyres_image_grid_shape(image.size, config.image_grid_pinpoints, side)
        return [image.resize((side, side)), resize_and_pad_image(image, (columns * side, rows * side))]
    return [ImageOps.fit(image, (side, side))]


def kept_masks(keep: Tensor | None, image_size: tuple[int, int], model: Any) -> list[np.ndarray]:
    """Which patches the language model saw, one mask for each of ``views``: (rows, columns) bool.

    Args:
        keep: the image's entry in ``last_prune.keep``, None for all.
        image_size: (width, height) of the image in pixels.
    """
    tower, config = model.get_vision_tower(), model.config
    side, patches = tower.num_patches_per_side, tower.num_patches
    if getattr(config, "image_aspect_ratio", None) != "anyres":
        order = reading_order(1, patches, "flat")
        return [_kept(keep, order, patches).view(side, side).numpy()]
    grid = get_anyres_image_grid_shape(image_size, config.image_grid_pinpoints, tower.config.image_size)
    tiles = 1 + grid[0] * grid[1]
    order = reading_order(tiles, patches, getattr(config, "mm_patch_merge_type", "flat"), grid, image_size)
    kept = _kept(keep, order, tiles * patches)
    return [kept[:patches].view(side, side).numpy(), kept[grid_ids(side, grid)].numpy()]


def _kept(keep: Tensor | None, order: Tensor, patches: int) -> Tensor:
    """Turn an entry of ``last_prune.keep`` into one flag for each of so many patches, (patches,) bool.

    Args:
        order: what the language model would read without a pruner, from ``reading_order``.
    """
    ids = order if keep is None else order[keep.cpu()]
    kept = torch.zeros(patches, dtype=torch.bool)
    kept[ids[ids != NEWLINE]] = True
    return kept
