"""LLaVA-NeXT-Video: images as LLaVA-NeXT has them, frames of a video pooled before the projector."""

import math

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from llava.pruning.families.llava_next import LlavaNextFamily


class LlavaNextVideoFamily(LlavaNextFamily):
    """``LlavaNextVideoForConditionalGeneration``.

    A token of a video stands for a square of patches: its cues are the mean of theirs, whichever way the model pools
    its features.
    """

    modalities = ("image", "video")

    def reader(self, modality: str) -> nn.Module:
        return self.base.vision_resampler if modality == "video" else super().reader(modality)

    def cues(self, modality: str, tape: dict[str, Tensor], clip: bool) -> dict[str, Tensor]:
        cues = super().cues(modality, tape, clip)
        if modality == "image":
            return cues
        pooled = {name: mean_of_squares(cue, self.config.spatial_pool_stride) for name, cue in cues.items()}
        pooled["features"] = self.base.vision_resampler.forward(tape["features"])  # as no call of the model's own
        return pooled


def mean_of_squares(cue: Tensor, stride: int) -> Tensor:
    """Average over squares of ``stride`` x ``stride`` patches: (B, N) or (B, N, C) in raster order, N a square."""
    side = math.isqrt(cue.shape[1])
    grid = cue.unflatten(1, (side, side)).reshape(len(cue), side, side, -1).permute(0, 3, 1, 2)  # (B, C, h, w)
    pooled = avg_pool2d(grid, stride).flatten(2).transpose(1, 2)
    return pooled if cue.ndim == 3 else pooled.squeeze(2)
