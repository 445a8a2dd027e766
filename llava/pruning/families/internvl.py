"""InternVL: tiles and a thumbnail per image, four patches to a token."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from llava.pruning.families.base import Family
from llava.selecting.parts import Part, Visual


class InternVLFamily(Family):
    """``InternVLForConditionalGeneration``.

    The encoder is told nothing of which tiles make an image: in a prompt these are the ones without anything between
    them. A frame of a video is an image of one tile.
    """

    def blocks(self, modality: str) -> nn.ModuleList:
        return self.base.vision_tower.encoder.layer

    def queries_and_keys(self, block: nn.Module, hidden_states: Tensor) -> tuple[Tensor, Tensor, float]:
        attention = block.attention
        hidden_states = block.layernorm_before(hidden_states)
        split = (*hidden_states.shape[:2], -1, attention.head_dim)
        query = attention.q_norm(attention.q_proj(hidden_states)).view(split)
        key = attention.k_norm(attention.k_proj(hidden_states)).view(split)
        return query, key, attention.scale

    def of_tokens(self, cue: Tensor, tokens: int) -> Tensor:
        """Average over the patches of each token, as the model joins them: (B, 1 + P, ...) -> (B, N, ...)."""
        patches = cue[:, 1:]
        side = math.isqrt(patches.shape[1])
        grid = patches.reshape(len(patches), side, side, -1)
        joined = self.base.pixel_shuffle(grid, self.config.downsample_ratio).flatten(1, 2)  # (B, N, patches * C)
        mean = joined.unflatten(2, (-1, grid.shape[3])).mean(dim=2)
        return mean.squeeze(2) if cue.ndim == 2 else mean

    def grouped(self, visuals: list[Visual], rows: Tensor, columns: Tensor) -> list[Visual]:
        """Join the tiles of each image."""
        starts = torch.tensor([0, *(visual.length for visual in visuals)]).cumsum(0)[:-1].to(rows.device)
        apart = torch.ones(len(visuals), dtype=torch.bool)
        before, first = starts[1:] - 1, starts[1:]
        apart[1:] = ((rows[before] != rows[first]) | (columns[before] + 1 != columns[first])).cpu()
        bounds = [*apart.nonzero().flatten().tolist(), len(visuals)]
        return [joined(visuals[start:end]) for start, end in pairwise(bounds)]


def joined(tiles: list[Visual]) -> Visual:
    """Make one image of its tiles, each of one part."""
    starts = torch.tensor([0, *(tile.length for tile in tiles)]).cumsum(0)
    parts = [Part(tile.parts[0].positions + start) for tile, start in zip(tiles, starts[:-1], strict=True)]
    cues = {name: torch.cat([tile.cues[name] for tile in tiles]) for name in tiles[0].cues}
    return Visual(int(starts[-1]), parts, cues)
