"""Qwen2-VL and Qwen2.5-VL: images and videos of any size in one sequence of patches, several patches to a token."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.qwen2_vl.modeling_qwen2_vl import apply_rotary_pos_emb_vision
from transformers.vision_utils import get_vision_window_index

from llava.pruning.families.base import Family
from llava.pruning.families.listening import Asks
from llava.selecting.parts import Part, Visual
from llava.selecting.words import strip_question


class Merging(nn.Module):
    """A merger that reads the patches of a token as one vector, (R, patches * C) -> (R, D)."""

    def __init__(self, merger: nn.Module, patches: int):
        super().__init__()
        self.merger, self.patches = merger, patches

    def forward(self, rows: Tensor) -> Tensor:
        return self.merger(rows.unflatten(1, (self.patches, -1)).flatten(0, 1))


class QwenFamily(Family):
    """``Qwen2VLForConditionalGeneration``.

    What the encoder yields is what the language model reads, so the embeddings stand for the features. A token's
    position is its place in the image, which it keeps.
    """

    modalities = ("image", "video")
    positions = ("original",)

    def tower(self, modality: str) -> nn.Module:
        return self.base.visual

    def blocks(self, modality: str) -> nn.ModuleList:
        return self.base.visual.blocks

    def projector(self) -> nn.Module:
        return self.base.visual.merger

    def block_cues(
        self,
        block: nn.Module,
        names: set[str],
        hidden_states: Tensor,
        cu_seqlens: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        **_: Any,
    ) -> dict[str, Tensor]:
        """The cues of a block from its input (S, C), attention that of each patch in its own image or frame alone."""
        attention = block.attn
        states = attention.qkv(block.norm1(hidden_states))
        query, key, _ = states.view(len(states), 3, attention.num_heads, -1).unbind(1)  # (S, H, d)
        query, key = apply_rotary_pos_emb_vision(query, key, *position_embeddings)
        lengths = cu_seqlens.diff().tolist()
        segments = [
            self.cues_of(names, q.unsqueeze(0), k.unsqueeze(0), attention.scaling)
            for q, k in zip(query.split(lengths), key.split(lengths), strict=True)
        ]
        return {name: torch.cat([segment[name][0] for segment in segments]) for name in segments[0]}

    def cues_of_features(self, features: Tensor, needs: frozenset[str], asks: Asks) -> dict[str, Tensor]:
        """What the merger is given, (S, C), before it makes tokens of patches."""
        patches = self.base.visual.spatial_merge_size**2
        found = super().cues_of_features(features, needs, asks)  # of tokens, told of each of their patches
        found = {name: cue.flatten().repeat_interleave(patches) for name, cue in found.items()}
        return found | {"premerger": features} if "premerger" in needs else found

    def sensed(self, features: Tensor) -> tuple[nn.Module, Tensor]:
        """The merger and the patches of each token, one behind the other, (1, N, patches * C)."""
        patches = self.base.visual.spatial_merge_size**2
        return Merging(self.projector(), patches), features.unflatten(0, (-1, patches)).flatten(1).unsqueeze(0)

    def words(self, question: str) -> list[str]:
        """All words, as MMTok reads them with Qwen."""
        return f"Question: {strip_question(question)}".split()

    def visuals(self, modality: str, arguments: dict[str, Any], tape: dict[str, Tensor], clip: bool) -> list[Visual]:
        grids = arguments[f"{modality}_grid_thw"]  # (V, 3) frames, patch rows and patch columns
        patches = self.base.visual.spatial_merge_size**2
        lengths = (grids.prod(dim=1) // patches).tolist()
        cues = {
            name: self.in_raster_order(cue.unflatten(0, (-1, patches)).mean(dim=1), grids).split(lengths)
            for name, cue in tape.items()
            if name != "features"
        }
        return [
            Visual(
                length,
                [Part(frame, grid=self.rows_and_columns(grid)) for frame in torch.arange(length).chunk(grid[0])],
                {name: cue[index] for name, cue in cues.items()},
            )
            for index, (length, grid) in enumerate(zip(lengths, grids.tolist(), strict=True))
        ]

    def rows_and_columns(self, grid: list[int]) -> tuple[int, int] | None:
        """Of the tokens of an image or frame, from frames, patch rows and patch columns; None of a square."""
        rows, columns = (patches // self.base.visual.spatial_merge_size for patches in grid[1:])
        return None if rows == columns else (rows, columns)

    def in_raster_order(self, cue: Tensor, grids: Tensor) -> Tensor:
        """Put a cue of all tokens (N, ...) from the order within the encoder into that in which they are read."""
        return cue


class Qwen25Family(QwenFamily):
    """``Qwen2_5_VLForConditionalGeneration``: most blocks attend within windows, whose tokens are kept together."""

    def last_block(self, modality: str) -> nn.Module:
        return self.blocks(modality)[max(self.base.visual.fullatt_block_indexes)]

    def whole_blocks(self, modality: str) -> Sequence[int]:
        return sorted(index + 1 for index in self.base.visual.fullatt_block_indexes)

    def in_raster_order(self, cue: Tensor, grids: Tensor) -> Tensor:
        tower = self.base.visual
        order, _ = get_vision_window_index(grids, tower.spatial_merge_size, tower.window_size, tower.patch_size)
        return cue[order.to(cue.device).argsort()]
