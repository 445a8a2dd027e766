"""vLLM's LLaVA classes with pruned images; without ``visual_pruner`` they make vLLM's own."""

import re
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import CLIPVisionModel, PreTrainedTokenizerBase
from transformers.activations import ACT2FN
from vllm.config import VllmConfig
from vllm.model_executor.models import llava, llava_next
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.tokenizers import cached_tokenizer_from_config

from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower
from llava.vllm import ENTRY
from llava.vllm.images import ServedImages
from llava.vllm.options import Served, served
from llava.vllm.processing import PrunedInfo, PrunedProcessor, info_of, processor_of
from llava.vllm.questions import PICTURE_SIZE, QUESTION, from_bytes

PROJECTOR = re.compile(r"multi_modal_projector\.(linear_[12]\.(?:weight|bias))$")
TOWER = re.compile(r"^(?:model\.)?vision_tower\.(?:vision_model\.)?")

if TYPE_CHECKING:  # what the mixin is mixed into
    _Model = llava.LlavaForConditionalGeneration
else:
    _Model = object


class Pruned(_Model):
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
        if found is None:
            raise ValueError(f"{ENTRY}: the config of the model has none")
        with self._mark_tower_model(vllm_config, "image"):
            self.vision_tower = _tower(found, self.config, vllm_config.model_config.dtype)
        newline = getattr(self, "image_newline", None)
        needs, plain, words = found.options.needs, None, {}
        if "sensitivity" in needs:
            plain = PlainProjector(self.config)
        if "text_tokens" in needs:
            words = {"table": self.language_model.embed_input_ids, "tokenizer": _tokenizer(vllm_config.model_config)}
        # Not a module of its own: the weights are those of the modules that it refers to.
        images = ServedImages(found, self.vision_tower, self.multi_modal_projector, newline, plain, **words)
        self.__dict__ |= {"images": images, "plain": plain}

    def embed_multimodal(self, **kwargs: Any) -> Any:
        """Return the kept embeddings (K, D) of each image."""
        asked, shown = kwargs.pop(QUESTION, None), kwargs.pop(PICTURE_SIZE, None)
        given = self._parse_and_validate_image_input(**kwargs)
        if given is None:
            return []
        pixels = list(given["pixel_values"])
        sizes = given.get("image_sizes")
        sizes = None if sizes is None else [(width, height) for height, width in sizes.tolist()]
        sizes = sizes if shown is None else [tuple(size.tolist()) for size in shown]
        texts = [""] * len(pixels) if asked is None else [from_bytes(row) for row in asked]
        return self.images(pixels, sizes, texts)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        inner = "vision_model." if hasattr(self.vision_tower.vision_tower, "vision_model") else ""
        plain = self.__dict__.get("plain")
        seen = weights if plain is None else plain.noting(weights)
        return super().load_weights(
            (TOWER.sub(f"vision_tower.vision_tower.{inner}", name), weight) for name, weight in seen
        )


class PlainProjector(nn.Module):
    """The projector once more, in float32 and in PyTorch's own operations: its derivatives are taken.

    vLLM's is split over GPUs or packed for a CPU, by operations that have none.
    """

    def __init__(self, config: Any):
        super().__init__()
        width, hidden = config.vision_config.hidden_size, config.text_config.hidden_size
        bias = config.multimodal_projector_bias
        self.linear_1 = nn.Linear(width, hidden, bias, dtype=torch.float32)
        self.act = ACT2FN[config.projector_hidden_act]
        self.linear_2 = nn.Linear(hidden, hidden, bias, dtype=torch.float32)
        self.requires_grad_(False)

    def forward(self, features: Tensor) -> Tensor:
        """(R, C) -> (R, D)."""
        return self.linear_2(self.act(self.linear_1(features)))

    def noting(self, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """Hand weights on, and copy those that are the projector's.

        Raises:
            ValueError: they are quantised.
        """
        own = dict(self.named_parameters())
        for name, weight in weights:
            if (found := PROJECTOR.search(name)) and found[1] in own:
                if not weight.is_floating_point() or weight.shape != own[found[1]].shape:
                    raise ValueError(f"{ENTRY}: sensitivity needs a projector that is not quantised, {name} is")
                own[found[1]].copy_(weight)
            yield name, weight


def _tokenizer(config: Any) -> Any:
    """The tokenizer that vLLM reads prompts with; ValueError where it has none that splits words."""
    tokenizer = None if config.skip_tokenizer_init else cached_tokenizer_from_config(config)
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise ValueError(f"{ENTRY}: text_tokens are read with a tokenizer of Transformers, which this server has not")
    return tokenizer


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
