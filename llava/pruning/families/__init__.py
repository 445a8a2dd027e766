"""The families of Transformers' vision-language models whose tokens can be pruned, by class name."""

from llava.pruning.families.base import Family
from llava.pruning.families.internvl import InternVLFamily
from llava.pruning.families.llava import LlavaFamily
from llava.pruning.families.llava_next import LlavaNextFamily
from llava.pruning.families.llava_next_video import LlavaNextVideoFamily
from llava.pruning.families.onevision import OneVisionFamily
from llava.pruning.families.qwen import Qwen25Family, QwenFamily
from llava.pruning.families.qwen3 import Qwen3Family
from llava.pruning.families.video_llava import VideoLlavaFamily

__all__ = ["FAMILIES", "Family", "family_of"]

FAMILIES: dict[str, type[Family]] = {
    "LlavaForConditionalGeneration": LlavaFamily,
    "LlavaNextForConditionalGeneration": LlavaNextFamily,
    "LlavaNextVideoForConditionalGeneration": LlavaNextVideoFamily,
    "LlavaOnevisionForConditionalGeneration": OneVisionFamily,
    "VideoLlavaForConditionalGeneration": VideoLlavaFamily,
    "Qwen2VLForConditionalGeneration": QwenFamily,
    "Qwen2_5_VLForConditionalGeneration": Qwen25Family,
    "Qwen3VLForConditionalGeneration": Qwen3Family,
    "InternVLForConditionalGeneration": InternVLFamily,
}


def family_of(model: object) -> type[Family]:
    """Return the family of a model, or of a class of models, of whichever class it or its ancestors are.

    Raises:
        TypeError: for a model of no family here, with the names of those that are.
    """
    model_class = model if isinstance(model, type) else type(model)
    for cls in model_class.__mro__:
        if cls.__name__ in FAMILIES:
            return FAMILIES[cls.__name__]
    raise TypeError(f"cannot prune {model_class.__name__}; supported classes: {', '.join(FAMILIES)}")
