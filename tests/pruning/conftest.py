"""Tiny random models of every supported family, with a batch of prompts for each."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
)

IMAGE, VIDEO, PAD = 90, 91, 0


@dataclass
class Tiny:
    """A model and the arguments of ``generate`` for a batch of prompts that differ in length."""

    model: torch.nn.Module
    inputs: dict[str, Tensor]
    visuals: int  # images or videos in the batch
    rows: list[int] = field(default_factory=list)  # the prompt that each stands in


def text(*ids: int) -> list[int]:
    return list(ids)


def batch(prompts: list[list[int]], **pixels: Tensor) -> dict[str, Tensor]:
    """Pad prompts at the left."""
    width = max(map(len, prompts))
    ids = torch.tensor([[PAD] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return {"input_ids": ids, "attention_mask": mask, **pixels}


def llama(**kwargs) -> LlamaConfig:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    return LlamaConfig(**sizes, num_key_value_heads=2, vocab_size=96, pad_token_id=PAD, eos_token_id=95, **kwargs)


def clip(**kwargs) -> CLIPVisionConfig:
    sizes = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
    return CLIPVisionConfig(**sizes, image_size=8, patch_size=2, **kwargs)


def llava() -> Tiny:
    config = LlavaConfig(vision_config=clip(), text_config=llama(), image_token_index=IMAGE)
    image = [IMAGE] * 16
    prompts = [[1, 5, *image, 7, 8, *image, 9], [1, *image, 6]]
    pixels = torch.randn(3, 3, 8, 8)
    return Tiny(LlavaForConditionalGeneration(config), batch(prompts, pixel_values=pixels), 3, [0, 0, 1])


def llava_next() -> Tiny:
    pinpoints = [[8, 16], [16, 8], [16, 16]]
    config = LlavaNextConfig(
        vision_config=clip(), text_config=llama(), image_token_index=IMAGE, image_grid_pinpoints=pinpoints
    )
    sizes = torch.tensor([[16, 16], [7, 16]])  # 2 x 2 tiles; 1 x 2 tiles and a patch row of padding cut off
    lengths = [16 + 8 * 9, 16 + 4 * 9]
    pixels = torch.randn(2, 5, 3, 8, 8)
    prompts = [[1, 5, *[IMAGE] * lengths[0], 7], [1, *[IMAGE] * lengths[1], 6, 8]]
    inputs = batch(prompts, pixel_values=pixels, image_sizes=sizes)
    return Tiny(LlavaNextForConditionalGeneration(config), inputs, 2, [0, 1])


BUILDERS = {"llava": llava, "llava_next": llava_next}


def build(name: str, attn_implementation: str = "sdpa") -> Tiny:
    torch.manual_seed(0)
    tiny = BUILDERS[name]()
    tiny.model.eval().set_attn_implementation(attn_implementation)
    for parameter in tiny.model.parameters():  # the default initialisation makes all answers alike
        parameter.data.normal_(std=0.3)
    tiny.model.generation_config.eos_token_id = None
    return tiny


@pytest.fixture(params=BUILDERS)
def tiny(request) -> Tiny:
    return build(request.param)


@pytest.fixture
def tiny_llava() -> Tiny:
    return build("llava")
