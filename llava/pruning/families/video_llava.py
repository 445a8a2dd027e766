"""Video-LLaVA: an encoder for images and one for videos, a projector for both."""

from typing import Any

from torch import Tensor, nn

from llava.pruning.families.base import Family
from llava.pruning.families.video import frame_visuals
from llava.selecting.parts import Visual


class VideoLlavaFamily(Family):
    """``VideoLlavaForConditionalGeneration``.

    The language model reads the [CLS] token of every frame of a video, though not that of an image: among the tokens
    of its frame it is a candidate as any other, whose attention cue is that of [CLS] to itself.
    """

    modalities = ("image", "video")

    def tower(self, modality: str) -> nn.Module:
        return self.base.video_tower if modality == "video" else self.base.image_tower

    def visuals(
        self, modality: str, output: Any, arguments: dict[str, Any], tape: dict[str, Tensor], clip: bool
    ) -> list[Visual]:
        frames = arguments["pixel_values_videos"].shape[1] if modality == "video" else 1
        return frame_visuals(self.cues(modality, tape, clip), frames)
