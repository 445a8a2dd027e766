"""LLaVA-NeXT: a base tile, then a grid of tiles without its padding, a newline token behind every row."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

from llava.pruning.families.base import Family
from llava.selecting.parts import Part, Visual


class LlavaNextFamily(Family):
    """``LlavaNextForConditionalGeneration``.

    Cues take the way of the features: the model's own packing puts them into the order of its tokens.
    """

    def visuals(self, modality: str, arguments: dict[str, Any], tape: dict[str, Tensor], clip: bool) -> list[Visual]:
        if modality == "video":
            return super().visuals(modality, arguments, tape, clip)
        batch, tokens = tape["features"].shape[:2]
        counts = self.tiles_of_images(arguments)
        is_patch = self.packed(torch.ones(batch, tokens, device=tape["features"].device), counts, arguments)
        newlines = [(marks == 0).cpu() for marks in is_patch]
        parts = [anyres_parts(newline, count, tokens) for newline, count in zip(newlines, counts, strict=True)]
        cues = {name: self.packed(cue, counts, arguments) for name, cue in self.cues(modality, tape, clip).items()}
        return [
            Visual(len(newline), parts[image], {name: cue[image] for name, cue in cues.items()}, newline)
            for image, newline in enumerate(newlines)
        ]

    def tiles_of_images(self, arguments: dict[str, Any]) -> list[int]:
        """Return how many tiles each image was cut into, the base included."""
        pinpoints, side = self.config.image_grid_pinpoints, self.config.vision_config.image_size
        return [image_size_to_num_patches(size, pinpoints, side) for size in arguments["image_sizes"]]

    def packed(self, cue: Tensor, counts: list[int], arguments: dict[str, Any]) -> list[Tensor]:
        """Send a cue (B, N) or (B, N, C) the way of the features, in float32: (L,) or (L, C) per image."""
        wide = cue.float() if cue.ndim == 3 else cue.float().unsqueeze(2)
        images = self.pack(wide.split(counts), wide.new_zeros(wide.shape[2]), arguments)
        return images if cue.ndim == 3 else [image.squeeze(1) for image in images]

    def pack(self, tiles: Sequence[Tensor], newline: Tensor, arguments: dict[str, Any]) -> list[Tensor]:
        """Pack the tiles (T, N, C) of each image to (L, C), with ``newline`` (C,) behind every row."""
        return self.base.pack_image_features(tiles, arguments["image_sizes"], "full", image_newline=newline)[0]


def anyres_parts(newline: Tensor, tiles: int, tokens: int) -> list[Part]:
    """Return base and grid, which are chosen from apart and have no statistics in common."""
    patches = (~newline).nonzero().flatten()
    if tiles == 1:
        return [Part(patches)]
    rows, in_grid = int(newline.sum()), len(patches) - tokens
    whole = rows and in_grid and in_grid % rows == 0 and in_grid != rows * rows
    grid = (rows, in_grid // rows) if whole else None
    return [Part(patches[:tokens]), Part(patches[tokens:], tiles - 1, group=1, grid=grid)]
