"""LLaVA-OneVision: SigLIP's patches, a grid of tiles scaled down to a limit, frames of a video scaled to half."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from llava.pruning.families.llava_next import LlavaNextFamily


class OneVisionFamily(LlavaNextFamily):
    """``LlavaOnevisionForConditionalGeneration``.

    Cues are scaled as the features are. The tiles of a grid that is scaled down count towards the budget as tiles.
    """

    modalities = ("image", "video")
    newline_after_video = True

    def cues(self, modality: str, tape: dict[str, Tensor], clip: bool) -> dict[str, Tensor]:
        cues = super().cues(modality, tape, clip)
        return cues if modality == "image" else {name: self.halved(cue) for name, cue in cues.items()}

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

    def pack(self, tiles: Sequence[Tensor], newline: Tensor, arguments: dict[str, Any]) -> list[Tensor]:
        sizes, limit = arguments["image_sizes"], arguments.get("vision_aspect_ratio") or self.config.vision_aspect_ratio
        return self.base.pack_image_features(tiles, sizes, image_newline=newline, vision_aspect_ratio=limit)[0]
