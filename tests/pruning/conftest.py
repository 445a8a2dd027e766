"""Tiny random models of every supported family, with a batch of prompts for each."""

import inspect
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextVideoConfig,
    LlavaNextVideoForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SiglipVisionConfig,
    VideoLlavaConfig,
    VideoLlavaForConditionalGeneration,
)

IMAGE, VIDEO, PAD = 90, 91, 0


@dataclass
class Tiny:
    """A model and the arguments of ``generate`` for a batch of prompts that differ in length."""

    model: torch.nn.Module
    inputs: dict[str, Tensor]
    visuals: int  # images or videos in the batch
    rows: list[int] = field(default_factory=list)  # the prompt that each stands in


class Letters:
    """Tokenises a word to one id for each letter, as words do that fit the tiny models' 96 ids."""

    bos_token_id = 1

    def __call__(self, given, is_split_into_words, verbose):
        return {"input_ids": [1, *(ord(letter) % 80 + 2 for word in given for letter in word)]}


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


VISION = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}


def clip(**kwargs) -> CLIPVisionConfig:
    return CLIPVisionConfig(**{**VISION, "image_size": 8, "patch_size": 2, **kwargs})


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


def llava_next_video() -> Tiny:
    """A prompt with an image and a video, and one with a video: 36 patches per frame, pooled to 9 tokens."""
    config = LlavaNextVideoConfig(
        vision_config=clip(image_size=12),
        text_config=llama(),
        image_token_index=IMAGE,
        video_token_index=VIDEO,
        image_grid_pinpoints=[[12, 24], [24, 12]],
    )
    image, video = [IMAGE] * (36 + 6 * 13), [VIDEO] * (3 * 9)
    inputs = batch(
        [[1, 5, *image, 7, *video, 8], [1, *video, 6]],
        pixel_values=torch.randn(1, 3, 3, 12, 12),
        image_sizes=torch.tensor([[12, 24]]),
        pixel_values_videos=torch.randn(2, 3, 3, 12, 12),
    )
    return Tiny(LlavaNextVideoForConditionalGeneration(config), inputs, 3, [0, 0, 1])


def onevision() -> Tiny:
    """A prompt with a video and an image of tiles, scaled down to the limit; and one with two images, not tiled."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**VISION, image_size=8, patch_size=2, vision_use_head=False),
        text_config=Qwen2Config(**sizes, num_key_value_heads=2, vocab_size=96, pad_token_id=PAD, eos_token_id=95),
        image_token_index=IMAGE,
        video_token_index=VIDEO,
        image_grid_pinpoints=[[8, 8], [8, 16], [16, 16]],
        vision_aspect_ratio="anyres_max_2",
    )
    # 8 x 8 patches of the grid are sqrt(64 / (2 * 16)) times too many along a side: 5 x 5 are left.
    image, alone, video = [IMAGE] * (16 + 5 * 6), [IMAGE] * (16 + 1), [VIDEO] * (3 * 4 + 1)
    inputs = batch(
        [[1, *video, 5, *image, 7], [1, 6, *alone, 8, *alone, 9]],
        pixel_values=torch.randn(3, 5, 3, 8, 8),
        image_sizes=torch.tensor([[16, 16], [8, 16], [16, 16]]),
        batch_num_images=torch.tensor([1, 2]),
        pixel_values_videos=torch.randn(1, 3, 3, 8, 8),
    )
    return Tiny(LlavaOnevisionForConditionalGeneration(config), inputs, 4, [0, 0, 1, 1])


def video_llava() -> Tiny:
    """A prompt with a video between two images, and one with a video: 16 tokens per image, 17 per frame."""
    config = VideoLlavaConfig(
        vision_config=clip(), text_config=llama(), image_token_index=IMAGE, video_token_index=VIDEO
    )
    model = VideoLlavaForConditionalGeneration(config)
    image, video = [IMAGE] * 16, [VIDEO] * (2 * 17)
    pixels = next(iter(inspect.signature(model.get_image_features).parameters))  # older: pixel_values_images
    inputs = batch(
        [[1, *image, 5, *video, *image, 7], [1, 6, *video, 8]],
        **{pixels: torch.randn(2, 3, 8, 8)},
        pixel_values_videos=torch.randn(2, 2, 3, 8, 8),
    )
    return Tiny(model, inputs, 4, [0, 0, 0, 1])


MROPE = {"rope_type": "default", "mrope_section": [2, 1, 1]}  # sections of half a head
QWEN_TEXT = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 96, "pad_token_id": PAD, "rope_parameters": MROPE,
}  # fmt: skip
QWEN_VISION = {"depth": 3, "num_heads": 4, "patch_size": 2}
QWEN_TOKENS = {"image_token_id": IMAGE, "video_token_id": VIDEO, "vision_start_token_id": 92, "vision_end_token_id": 93}


def qwen2() -> torch.nn.Module:
    vision = {**QWEN_VISION, "embed_dim": 32, "hidden_size": 32}
    return Qwen2VLForConditionalGeneration(
        Qwen2VLConfig(vision_config=vision, text_config={**QWEN_TEXT, "bos_token_id": 1}, **QWEN_TOKENS)
    )


def qwen2_5() -> torch.nn.Module:
    """Windows of 2 x 2 tokens; the last block that attends to whole images is the second of three."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 32}
    vision = {**QWEN_VISION, **sizes, "window_size": 8, "fullatt_block_indexes": [1]}
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(vision_config=vision, text_config={**QWEN_TEXT, "bos_token_id": 1}, **QWEN_TOKENS)
    )


def qwen3() -> torch.nn.Module:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 32}
    vision = {**QWEN_VISION, **sizes, "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1]}
    text_config = {**QWEN_TEXT, "head_dim": 8}
    return Qwen3VLForConditionalGeneration(Qwen3VLConfig(vision_config=vision, text_config=text_config, **QWEN_TOKENS))


def qwen(model: torch.nn.Module, images: bool, videos: bool) -> Tiny:
    """Images of 3 x 5, 2 x 2 and 2 x 3 tokens; videos of 2 x 2 x 3 and 3 x 1 x 2."""
    image_grids = torch.tensor([[1, 6, 10], [1, 4, 4], [1, 4, 6]])
    video_grids = torch.tensor([[2, 4, 6], [3, 2, 4]])
    first, second, third = ([92, *[IMAGE] * tokens, 93] for tokens in (15, 4, 6))
    clips = [92, *[VIDEO] * 12, 93], [92, *[VIDEO] * 6, 93]
    if model.config.model_type == "qwen3_vl":  # a timestamp before every frame
        clips = [10, *[92, *[VIDEO] * 6, 93, 11] * 2], [10, *[92, *[VIDEO] * 2, 93, 11] * 3]
    if images and videos:
        prompts = [[1, 5, *first, 7, *clips[0], *second, 9], [*clips[1], 4, *third, 6]]
    elif images:
        prompts = [[1, 5, *first, 7, 8, *second, 9], [1, *third, 6]]
    else:
        prompts = [[1, 5, *clips[0], 7, 8], [1, *clips[1], 6]]
    inputs = batch(prompts)
    ids = inputs["input_ids"]
    inputs["mm_token_type_ids"] = (ids == IMAGE).int() + 2 * (ids == VIDEO).int()
    if images:
        patches = torch.randn(int(image_grids.prod(dim=1).sum()), 24)
        inputs |= {"pixel_values": patches, "image_grid_thw": image_grids}
    if videos:
        patches = torch.randn(int(video_grids.prod(dim=1).sum()), 24)
        inputs |= {"pixel_values_videos": patches, "video_grid_thw": video_grids}
        if model.config.model_type == "qwen2_5_vl":  # two and one positions between frames
            inputs["second_per_grid_ts"] = torch.tensor([0.5, 0.25])
    rows = sorted([0, 0, 1] * images + [0, 1] * videos)
    return Tiny(model, inputs, len(rows), rows)


def internvl() -> Tiny:
    """An image of two tiles and a thumbnail and one of a tile alone, and one of two tiles and a thumbnail."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    vision = InternVLVisionConfig(**sizes, image_size=16, patch_size=2, use_qk_norm=True, attention_bias=True)
    config = InternVLConfig(vision_config=vision, text_config=llama(), image_token_id=IMAGE, tie_word_embeddings=False)
    tile = [IMAGE] * 16
    prompts = [[1, 92, *tile * 3, 93, 7, 92, *tile, 93], [92, *tile * 3, 93, 6, 8]]
    inputs = batch(prompts, pixel_values=torch.randn(7, 3, 16, 16))
    return Tiny(InternVLForConditionalGeneration(config), inputs, 3, [0, 0, 1])


BUILDERS = {
    "llava": llava,
    "llava_next": llava_next,
    "llava_next_video": llava_next_video,
    "onevision": onevision,
    "video_llava": video_llava,
    "qwen2_images": lambda: qwen(qwen2(), images=True, videos=False),
    "qwen2_videos": lambda: qwen(qwen2(), images=False, videos=True),
    "qwen2_both": lambda: qwen(qwen2(), images=True, videos=True),
    "qwen2_5_images": lambda: qwen(qwen2_5(), images=True, videos=False),
    "qwen2_5_videos": lambda: qwen(qwen2_5(), images=False, videos=True),
    "qwen2_5_both": lambda: qwen(qwen2_5(), images=True, videos=True),
    "qwen3_images": lambda: qwen(qwen3(), images=True, videos=False),
    "qwen3_videos": lambda: qwen(qwen3(), images=False, videos=True),
    "qwen3_both": lambda: qwen(qwen3(), images=True, videos=True),
    "internvl": internvl,
}


def build(name: str, attn_implementation: str = "sdpa") -> Tiny:
    torch.manual_seed(0)
    tiny = BUILDERS[name]()
    tiny.model.eval().set_attn_implementation(attn_implementation)
    for parameter in tiny.model.parameters():  # the default initialisation makes all answers alike
        parameter.data.normal_(std=0.3)
    tiny.model.get_output_embeddings().weight.data[[IMAGE, VIDEO]] = 0  # no answer holds a placeholder
    tiny.model.generation_config.eos_token_id = None
    return tiny


@pytest.fixture(scope="session", autouse=True)
def supported(can_prune) -> None:
    """All tests here need what ``prune`` needs."""


@pytest.fixture(params=BUILDERS)
def tiny(request) -> Tiny:
    return build(request.param)


@pytest.fixture
def tiny_llava() -> Tiny:
    return build("llava")


@pytest.fixture
def tiny_of():
    """Builds the model and batch of that name."""
    return build


READS_WORDS = {"texts": "What color is the large shape?", "tokenizer": Letters()}
"""What ``prune`` is given besides for a pruner that reads words; nobody else reads it."""
SMALL = {"hiprune": {"object_layer": 2}}
"""What pruners are told of encoders of three blocks, by name; the second sees whole images in all of them."""
