"""LLaVA-1.5 and its like: one tile per image, patches in raster order."""

from typing import Any

from torch import Tensor

from llava.pruning.families.base import Family
from llava.pruning.families.video import frame_visuals
from llava.selecting.parts import Visual


class LlavaFamily(Family):
    """``LlavaForConditionalGeneration``."""

    def visuals(
        self, modality: str, output: Any, arguments: dict[str, Any], tape: dict[str, Tensor], clip: bool
    ) -> list[Visual]:
        return frame_visuals(self.cues(modality, tape, clip), frames=1)
