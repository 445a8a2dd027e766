"""LLaVA-1.5 and its like: one tile per image, patches in raster order."""

from typing import Any

import torch
from torch import Tensor

from llava.pruning.families.base import Family
from llava.pruning.visual import Part, Visual


class LlavaFamily(Family):
    """``LlavaForConditionalGeneration``."""

    def visuals(
        self, modality: str, output: Any, arguments: dict[str, Any], tape: dict[str, Tensor], clip: bool
    ) -> list[Visual]:
        features = tape["features"]
        tokens = features.shape[1]
        attention = self.without_cls(tape["attention"], tokens) if "attention" in tape else [None] * len(features)
        patches = self.clip_patches(features) if clip else [None] * len(features)
        parts = [Part(torch.arange(tokens))]
        return [
            Visual(tokens, parts, features=one, attention=row, clip_patches=patch)
            for one, row, patch in zip(features, attention, patches, strict=True)
        ]
