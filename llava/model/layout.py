"""The sequence that the language model reads of one image, and where its tokens lie among those of all tiles."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from transformers import CLIPVisionConfig, PretrainedConfig

from llava.mm_utils import get_anyres_image_grid_shape
from llava.model.tiles import NEWLINE, reading_order
from llava.selecting.options import PruningOptions
from llava.selecting.padding import padding_patches
from llava.selecting.parts import Part, Visual


@dataclass(frozen=True)
class ImageLayout:
    """The merged sequence of one image before pruning, and where its tiles lie in the batch.

    Args:
        order: (L,) flat patch ids within the image, ``NEWLINE`` for the newline token.
        tiles: their number.
        first_tile: the image's first among the tiles of the batch.
        patches: N, of a tile.
    """

    order: Tensor
    tiles: int
    first_tile: int
    patches: int

    @cached_property
    def newline(self) -> Tensor | None:
        """Where the newline token stands, (L,) bool; None where it does not."""
        marks = self.order == NEWLINE
        return marks if marks.any() else None

    @cached_property
    def parts(self) -> list[Part]:
        """The tiles; of LLaVA-NeXT's native layout, which cuts some of their patches away, base tile and grid."""
        places = (self.order != NEWLINE).nonzero().flatten()
        if self.tiles > 1 and (self.newline is not None or len(places) != self.tiles * self.patches):
            base, grid = places[: self.patches], places[self.patches :]
            return [Part(base), Part(grid, self.tiles - 1, group=1, grid=self._rows_and_columns(len(grid)))]
        by_patch = places[self.order[places].argsort()]
        return [Part(tile) for tile in by_patch.view(self.tiles, self.patches)]

    def _rows_and_columns(self, patches: int) -> tuple[int, int] | None:
        """Of the grid behind the base tile, each of whose rows ends with a newline token; None of a square."""
        rows = 0 if self.newline is None else int(self.newline.sum())
        if not (rows and patches) or patches % rows or patches == rows * rows:
            return None
        return rows, patches // rows

    def places(self, newline: int) -> Tensor:
        """Of each token of the sequence, its place among the patches of all tiles of the batch, (L,).

        Args:
            newline: what stands for a newline token.
        """
        return (self.order + self.first_tile * self.patches).masked_fill(self.order == NEWLINE, newline)

    def visual(self, cues: Mapping[str, Tensor], newline: Tensor | None) -> Visual:
        """What can be chosen from, with cues (B, N, ...) of all tiles of the batch; ``newline`` (D,) is embedded."""
        own = {name: self.take(cue, newline=newline if name == "embeds" else None) for name, cue in cues.items()}
        return Visual(len(self.order), self.parts, own, self.newline)

    def take(self, values: Tensor, positions: Tensor | None = None, newline: Tensor | None = None) -> Tensor:
        """Return what all tiles of the batch have (B, N, ...) in the order of this image's sequence, (L, ...).

        Of ``positions`` (K,) of the sequence alone, if given; ``newline`` is what a newline token has, zeros if None.
        """
        flat = self._own(values)
        if torch.equal(self.order, torch.arange(len(flat))):
            return flat if positions is None or len(positions) == len(flat) else flat[positions.to(flat.device)]
        ids = self.order if positions is None else self.order.to(positions.device)[positions]
        ids = ids.to(flat.device)
        taken = flat[ids.clamp_min(0)]
        if self.newline is None:
            return taken
        marks = (ids == NEWLINE).view(-1, *[1] * (taken.ndim - 1))
        return torch.where(marks, taken.new_zeros(()) if newline is None else newline.to(taken), taken)

    def put(self, values: Tensor, sequence: Tensor) -> None:
        """Put a sequence (L, ...) back to where ``take`` found its patches among those of all tiles."""
        places = (self.order != NEWLINE).nonzero().flatten()
        self._own(values)[self.order[places].to(values.device)] = sequence[places.to(sequence.device)]

    def _own(self, values: Tensor) -> Tensor:
        """The patches of this image, (tiles * N, ...): a view."""
        return values[self.first_tile : self.first_tile + self.tiles].flatten(0, 1)


def layouts_of(
    tiles: Sequence[int],
    patches: int,
    merge_type: str,
    image_sizes: Sequence[tuple[int, int]] | None,
    config: PretrainedConfig,
    tile_size: int,
) -> list[ImageLayout]:
    """Lay out every image of a batch.

    Args:
        tiles: how many each has, of N ``patches``.
        merge_type: as in ``reading_order``.
        image_sizes: (width, height) of each in pixels; needed for images of several tiles, unless ``flat``.
        config: has the ``image_grid_pinpoints``, of tiles of ``tile_size`` pixels along a side.
    """
    layouts, first = [], 0
    for index, count in enumerate(tiles):
        grid = size = None
        if count > 1 and merge_type != "flat":
            if image_sizes is None:
                raise ValueError("images of several tiles need image_sizes, the (width, height) of each in pixels")
            size = tuple(image_sizes[index])
            grid = get_anyres_image_grid_shape(size, config.image_grid_pinpoints, tile_size)
        layouts.append(ImageLayout(reading_order(count, patches, merge_type, grid, size), count, first, patches))
        first += count
    return layouts


def sizes_of_squares(
    config: PretrainedConfig,
    options: PruningOptions,
    tiles: Sequence[int],
    image_sizes: Sequence[tuple[int, int]] | None,
) -> list[tuple[int, int]] | None:
    """The sizes of images that were padded to squares, where a pruner reads which patches are border.

    None where nobody reads it, or nobody said the sizes; or of a model that crops or tiles its images.
    """
    padded = getattr(config, "image_aspect_ratio", None) == "pad" and all(count == 1 for count in tiles)
    if "padding" not in options.needs or not padded or image_sizes is None:
        return None
    return [tuple(int(side) for side in size) for size in image_sizes]


def borders_of(sizes: Sequence[tuple[int, int]], vision: CLIPVisionConfig) -> Tensor:
    """The cue ``padding`` (B, N) of images of these sizes."""
    return torch.stack([padding_patches(size, vision.image_size, vision.patch_size).float() for size in sizes])
