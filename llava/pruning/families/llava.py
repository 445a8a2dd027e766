"""LLaVA-1.5 and its like: one tile per image, patches in raster order."""

from llava.pruning.families.base import Family


class LlavaFamily(Family):
    """``LlavaForConditionalGeneration``."""
