"""LLaVA-NeXT-Video: images as LLaVA-NeXT has them, frames of a video pooled before the projector."""

import math
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from llava.pruning.families.llava_next import LlavaNextFamily
from llava.pruning.families.video import frame_visuals
from llava.selecting.parts import Visual


class LlavaNextVideoFamily(LlavaNextFamily):
    """``LlavaNextVideoForConditionalGeneration``.

    A token of a video stands for a square of patches: its cues are the mean of theirs, whichever way the model pools
    its features.
    """

    modalities = ("image", "video")

    def reader(self, modality: str) -> nn.Module:
        return self.base.vision_resampler if modality == "video" else super().reader(modality)

    def visuals(
        self, modality: str, output: Any, arguments: dict[str, Any], tape: dict[str, Tensor], clip: bool
    ) -> list[Visual]:
        if modality == "image":
            return super().visuals(modality, output, arguments, tape, clip)
        stride = self.config.spatial_pool_stride
        cues = {name: mean_of_squares(cue, stride) for name, cue in self.cues(modality, tape, clip).items()}
        cues["features"] = self.base.vision_resampler.forward(tape["features"])  # as no call of the model's own
        return frame_visuals(cues, arguments["pixel_values_videos"].shape[1])


def mean_of_squares(cue: Tensor, stride: int) -> Tensor:
    """Average over squares of ``stride`` x ``stride`` patches: (B, N) or (B, N, C) in raster order, N a square."""
    side = math.isqrt(cue.shape[1])
    grid = cue.unflatten(1, (side, side)).reshape(len(cue), side, side, -1).permute(0, 3, 1, 2)  # (B, C, h, w)
    pooled = avg_pool2d(grid, stride).flatten(2).transpose(1, 2)
    return pooled if cue.ndim == 3 else pooled.squeeze(2)
