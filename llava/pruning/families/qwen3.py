"""Qwen3-VL: as Qwen2-VL, and deeper features of the tokens are added inside the language model."""

from typing import Any

from torch import Tensor

from llava.pruning.families.qwen import QwenFamily
from llava.pruning.shorten import Shortened


class Qwen3Family(QwenFamily):
    """``Qwen3VLForConditionalGeneration``. A prompt shows a video frame by frame, timestamps between them."""

    def first_prune_layer(self) -> int:
        """Behind the layers to which DeepStack adds features of all visual tokens."""
        return len(self.base.visual.deepstack_visual_indexes)

    def shorten(self, kwargs: dict[str, Any], keep: Tensor, short: Shortened) -> dict[str, Any]:
        """Return where visual tokens are left, and DeepStack's features of those, (K, D) per level."""
        visual, levels = kwargs["visual_pos_masks"], kwargs["deepstack_visual_embeds"]
        kept = keep.to(visual.device)[visual]
        left = visual.to(short.order.device).gather(1, short.order) & short.valid
        return {
            "visual_pos_masks": left.to(visual.device),
            "deepstack_visual_embeds": [level[kept.to(level.device)] for level in levels],
        }
