"""LLaVA-OneVision: SigLIP's patches, a grid of tiles scaled down to a limit, frames of a video scaled to half."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from llava.pruning.families.llava_next import LlavaNextFamily
from llava.pruning.families.video import frame_visuals
from llava.selecting.parts import Visual


class OneVisionFamily(LlavaNextFamily):
    """``LlavaOnevisionForConditionalGeneration``.

    Cues are scaled as the features are. The tiles of a grid that is scaled down count towards the budget as tiles.
    """

    modalities = ("image", "video")

    def visuals(
        self, modality: str, output: Any, arguments: dict[str, Any], tape: dict[str, Tensor], clip: bool
    ) -> list[Visual]:
        if modality == "image":
            return super().visuals(modality, output, arguments, tape, clip)
        cues = {name: self.halved(cue) for name, cue in self.cues(modality, tape, clip).items()}
        return frame_visuals(cues, arguments["pixel_values_videos"].shape[1], newline=True)

    def halved(self, cue: Tensor) -> Tensor:
        """Scale (B, N) or (B, N, C) as the model scales the tokens of frames."""
        return self.base.apply_pooling(cue) if cue.ndim == 3 else self.base.apply_pooling(cue.unsqueeze(2)).squeeze(2)

    def tiles_of_images(self, arguments: dict[str, Any]) -> list[int]:
        counts = super().tiles_of_images(arguments)
        images_of_prompts = arguments.get("batch_num_images")
        if images_of_prompts is None:
            return counts
        alone = [number == 1 for number in images_of_prompts for _ in range(number)]
        return [count if single else 1 for count, single in zip(counts, alone, strict=True)]

    def packer(self, arguments: dict[str, Any], counts: list[int]) -> Callable[[Tensor], list[Tensor]]:
        sizes, limit = arguments["image_sizes"], arguments.get("vision_aspect_ratio") or self.config.vision_aspect_ratio

        def pack(cue: Tensor) -> list[Tensor]:
            newline = cue.new_zeros(cue.shape[2])
            return self.base.pack_image_features(
                cue.split(counts), sizes, image_newline=newline, vision_aspect_ratio=limit
            )[0]

        return pack
