"""Video-LLaVA: an encoder for images and one for videos, a projector for both."""

from torch import nn

from llava.pruning.families.base import Family


class VideoLlavaFamily(Family):
    """``VideoLlavaForConditionalGeneration``.

    The language model reads the [CLS] token of every frame of a video, though not that of an image: among the tokens
    of its frame it is a candidate as any other, whose attention cue is that of [CLS] to itself.
    """

    modalities = ("image", "video")

    def tower(self, modality: str) -> nn.Module:
        return self.base.video_tower if modality == "video" else self.base.image_tower
