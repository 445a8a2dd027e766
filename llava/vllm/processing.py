"""Prompts and images on their way to a pruned model: how many tokens an image has, and which question it is shown with.

vLLM's processors are kept; a pruned model's differ from them in what stands here.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from transformers import BatchFeature
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.parse import ImageEmbeddingItems
from vllm.multimodal.processing import (
    BaseMultiModalProcessor,
    BaseProcessingInfo,
    InputProcessingContext,
    ProcessorInputs,
    TimingContext,
)

from llava.pruners.cues import QUESTION_CUES
from llava.vllm import ENTRY
from llava.vllm.images import Sizes
from llava.vllm.options import Served, served
from llava.vllm.questions import PICTURE_SIZE, QUESTION, question_of, to_bytes

if TYPE_CHECKING:  # what the mixins are mixed into
    _Info = BaseProcessingInfo
    _Processor = BaseMultiModalProcessor
else:
    _Info = _Processor = object


class PrunedInfo(_Info):
    """A mixin of vLLM's processing infos: an image has as many placeholders as tokens are kept.

    Raises:
        ValueError: when it is made, before anything is loaded, for options that cannot be served.
    """

    anyres: ClassVar[bool] = False

    def __init__(self, context: InputProcessingContext):
        super().__init__(context)
        config = self.get_hf_config()
        found = served(config)
        if found is None:
            raise ValueError(f"{ENTRY}: the config of the model has none")
        self.served: Served = found
        self.sizes = Sizes(self.served, config.vision_config, self.anyres)

    def get_num_image_tokens(self, *, image_width: int, image_height: int) -> int:
        return self.sizes.kept((image_width, image_height))


class PrunedProcessor(_Processor):
    """A mixin of vLLM's multimodal processors: the question is part of an image's key where a pruner reads it."""

    info: PrunedInfo

    def apply(self, inputs: ProcessorInputs, timing_ctx: TimingContext) -> Any:
        """Process a prompt.

        Raises:
            ValueError: for embeddings in place of an image, which nobody could prune any more.
        """
        if isinstance(inputs.mm_data_items.get("image"), ImageEmbeddingItems):
            raise ValueError(f"image_embeds cannot be pruned: serve them without {ENTRY}")
        options = self.info.served.options
        keywords = dict(inputs.hf_processor_mm_kwargs)
        asked = keywords.pop(QUESTION, None)
        if asked is not None and not isinstance(asked, str):
            raise ValueError(f"mm_processor_kwargs: {QUESTION} must be a string, not {type(asked).__name__}")
        if options.needs & QUESTION_CUES:
            keywords[QUESTION] = self._question(inputs.prompt) if asked is None else asked
        keywords[ENTRY] = repr(options)  # caches may be shared with a server that prunes otherwise
        return super().apply(replace(inputs, hf_processor_mm_kwargs=keywords), timing_ctx)

    def _question(self, prompt: list[int]) -> str:
        tokenizer = self.info.get_tokenizer()
        return question_of(tokenizer.decode(prompt).removeprefix(tokenizer.bos_token or ""))

    def _call_hf_processor(self, hf_data: Mapping[str, object], hf_kwargs: Mapping[str, object]) -> BatchFeature:
        own = {name: value for name, value in hf_kwargs.items() if name not in (QUESTION, ENTRY)}
        output = super()._call_hf_processor(hf_data, own)
        if QUESTION in hf_kwargs:
            output[QUESTION] = to_bytes(str(hf_kwargs[QUESTION])).repeat(len(output["pixel_values"]), 1)
        if "pixel_values" in output and self._pads():
            shown: Any = hf_data["images"]
            output[PICTURE_SIZE] = torch.tensor([size_of(image) for image in shown])
        return output

    def _pads(self) -> bool:
        """Whether a pruner reads where a border is, of a model whose processor pads pictures to squares."""
        processor = getattr(self.info.get_hf_processor(), "image_processor", None)
        wanted = "padding" in self.info.served.options.needs and not self.info.anyres
        return wanted and bool(getattr(processor, "do_pad", False))

    def _get_mm_fields_config(
        self, hf_inputs: BatchFeature, hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, MultiModalFieldConfig]:
        fields = dict(super()._get_mm_fields_config(hf_inputs, hf_processor_mm_kwargs))
        own = (QUESTION, PICTURE_SIZE)
        return fields | {name: MultiModalFieldConfig.batched("image", keep_on_cpu=True) for name in own}


def size_of(image: Any) -> tuple[int, int]:
    """Width and height of a picture, of PIL's or (3, H, W), in pixels."""
    return (image.shape[-1], image.shape[-2]) if hasattr(image, "shape") else tuple(image.size)


def info_of(own: Callable[[Any], BaseProcessingInfo], pruned: type[PrunedInfo]) -> Callable[[Any], BaseProcessingInfo]:
    """Choose between vLLM's processing info and a pruned model's, by whether the config asks for a pruner."""
    return lambda context: (own if served(context.get_hf_config()) is None else pruned)(context)


def processor_of(
    own: Callable[..., BaseMultiModalProcessor], pruned: type[PrunedProcessor]
) -> Callable[..., BaseMultiModalProcessor]:
    """Choose between vLLM's processor and a pruned model's, by the info that it is made with."""
    return lambda info, dummy_inputs: (pruned if isinstance(info, PrunedInfo) else own)(info, dummy_inputs)
