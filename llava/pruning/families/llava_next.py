"""LLaVA-NeXT: a base tile, then a grid of tiles without its padding, a newline token behind every row."""

from collections.abc import Callable
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

    def visuals(
        self, modality: str, output: Any, arguments: dict[str, Any], tape: dict[str, Tensor], clip: bool
    ) -> list[Visual]:
        batch, tokens = tape["features"].shape[:2]
        counts = self.tiles_of_images(arguments)
        pack = self.packer(arguments, counts)
        is_patch = packed(pack, torch.ones(batch, tokens, device=tape["features"].device))
        newlines = [(marks == 0).cpu() for marks in is_patch]
        cues = {name: packed(pack, cue) for name, cue in self.cues(modality, tape, clip).items()}
        return [
            Visual(
                len(newline),
                anyres_parts(newline, count, tokens),
                {name: cue[image] for name, cue in cues.items()},
                newline,
            )
            for image, (newline, count) in enumerate(zip(newlines, counts, strict=True))
        ]

    def tiles_of_images(self, arguments: dict[str, Any]) -> list[int]:
        """Return how many tiles each image was cut into, the base included."""
        pinpoints, side = self.config.image_grid_pinpoints, self.config.vision_config.image_size
        return [image_size_to_num_patches(size, pinpoints, side) for size in arguments["image_sizes"]]

    def packer(self, arguments: dict[str, Any], counts: list[int]) -> Callable[[Tensor], list[Tensor]]:
        """Return what packs (B, N, C) of all tiles to (L, C) per image, zero at newline tokens."""

        def pack(cue: Tensor) -> list[Tensor]:
            tiles, newline = cue.split(counts), cue.new_zeros(cue.shape[2])
            return self.base.pack_image_features(tiles, arguments["image_sizes"], "full", image_newline=newline)[0]

        return pack


def packed(pack: Callable[[Tensor], list[Tensor]], cue: Tensor) -> list[Tensor]:
    """Send a cue (B, N) or (B, N, C) the way of the features, in float32: (L,) or (L, C) per image."""
    if cue.ndim == 3:
        return pack(cue.float())
    return [image.squeeze(1) for image in pack(cue.float().unsqueeze(2))]


def anyres_parts(newline: Tensor, tiles: int, tokens: int) -> list[Part]:
    """Return base and grid, which are chosen from apart and have no statistics in common."""
    patches = (~newline).nonzero().flatten()
    if tiles == 1:
        return [Part(patches)]
    return [Part(patches[:tokens]), Part(patches[tokens:], tiles - 1, group=1)]
