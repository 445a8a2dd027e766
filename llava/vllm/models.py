"""vLLM's LLaVA classes with pruned images; without ``visual_pruner`` they make vLLM's own."""

import re
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, ClassVar

from torch import Tensor
from transformers import CLIPVisionModel
from vllm.config import VllmConfig
from vllm.model_executor.models import llava, llava_next
from vllm.multimodal import MULTIMODAL_REGISTRY

from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower
from llava.vllm.images import ServedImages
from llava.vllm.options import Served, served
from llava.vllm.processing import PrunedInfo, PrunedProcessor, info_of, processor_of
from llava.vllm.questions import QUESTION, from_bytes

TOWER = re.compile(r"^(?:model\.)?vision_tower\.(?:vision_model\.)?")


class Pruned:
    """A mixin of vLLM's models: the encoder is LLaVA's, which gives the cues, and images are pruned behind it.

    vLLM's encoder ends at the block whose output is read, keeps no cue, and is split over GPUs; this one is whole on
    each of them.
    """

    own: ClassVar[type]  # vLLM's class
    supports_tower_connector_lora = False

    def __new__(cls, *, vllm_config: VllmConfig, prefix: str = "") -> Any:
        if served(vllm_config.model_config.hf_config) is None:
            return cls.own(vllm_config=vllm_config, prefix=prefix)
        return super().__new__(cls)

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = ""):
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        if not isinstance(self.multi_modal_projector, llava.LlavaMultiModalProjector):
            return  # a server of text alone has no image side
        found = served(self.config)
        with self._mark_tower_model(vllm_config, "image"):
            self.vision_tower = _tower(found, self.config, vllm_config.model_config.dtype)
        newline = getattr(self, "image_newline", None)
        # Not a module of its own: the weights are those of the modules that it refers to.
        self.__dict__["images"] = ServedImages(found, self.vision_tower, self.multi_modal_projector, newline)

    def embed_multimodal(self, **kwargs: Any) -> Any:
        """Return the kept embeddings (K, D) of each image."""
        asked = kwargs.pop(QUESTION, None)
        given = self._parse_and_validate_image_input(**kwargs)
        if given is None:
            return []
        pixels = list(given["pixel_values"])
        sizes = given.get("image_sizes")
        sizes = None if sizes is None else [(width, height) for height, width in sizes.tolist()]
        texts = [""] * len(pixels) if asked is None else [from_bytes(row) for row in asked]
        return self.images(pixels, sizes, texts)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        inner = "vision_model." if hasattr(self.vision_tower.vision_tower, "vision_model") else ""
        return super().load_weights(
            (TOWER.sub(f"vision_tower.vision_tower.{inner}", name), weight) for name, weight in weights
        )


def _tower(found: Served, config: Any, dtype: Any) -> CLIPVisionTower:
    """LLaVA's encoder without its weights, named as the CLIP whose text side is read."""
    layers = SimpleNamespace(mm_vision_select_layer=config.vision_feature_layer)
    vision = CLIPVisionModel._from_config(config.vision_config, dtype=dtype)
    return CLIPVisionTower.around(vision, layers, found.text_tower)


class LlavaInfo(PrunedInfo, llava.LlavaProcessingInfo):
    """Sizes of LLaVA-1.5."""


class LlavaProcessor(PrunedProcessor, llava.LlavaMultiModalProcessor):
    """Prompts of LLaVA-1.5."""


@MULTIMODAL_REGISTRY.register_processor(
    processor_of(llava._build_llava_or_pixtral_hf_processor, LlavaProcessor),
    info=info_of(llava._build_llava_or_pixtral_hf_info, LlavaInfo),
    dummy_inputs=llava.LlavaDummyInputsBuilder,
)
class LlavaForConditionalGeneration(Pruned, llava.LlavaForConditionalGeneration):
    """LLaVA-1.5."""

    own = llava.LlavaForConditionalGeneration


class LlavaNextInfo(PrunedInfo, llava_next.LlavaNextProcessingInfo):
    """Sizes of LLaVA-NeXT."""

    anyres = True


class LlavaNextProcessor(PrunedProcessor, llava_next.LlavaNextMultiModalProcessor):
    """Prompts of LLaVA-NeXT."""


@MULTIMODAL_REGISTRY.register_processor(
    processor_of(llava_next.LlavaNextMultiModalProcessor, LlavaNextProcessor),
    info=info_of(llava_next.LlavaNextProcessingInfo, LlavaNextInfo),
    dummy_inputs=llava.LlavaDummyInputsBuilder,
)
class LlavaNextForConditionalGeneration(Pruned, llava_next.LlavaNextForConditionalGeneration):
    """LLaVA-NeXT, its tokens in LLaVA's order."""

    own = llava_next.LlavaNextForConditionalGeneration
