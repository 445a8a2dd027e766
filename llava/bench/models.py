"""LLaVA models with random weights, built in place: nothing is downloaded."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPTokenizer,
    CLIPVisionConfig,
)

from llava.bench.flops import CLIP_FFN, CLIP_LAYERS, CLIP_WIDTH, Shape
from llava.model import LlavaConfig, LlavaLlamaForCausalLM
from llava.selecting.relevance import ClipRelevance
from llava.shapes import checkpoint_path

CLIP_VISION = {"hidden_size": CLIP_WIDTH, "intermediate_size": CLIP_FFN, "num_hidden_layers": CLIP_LAYERS}
CLIP_VISION |= {"num_attention_heads": 16, "image_size": 336, "patch_size": 14}
CLIP_TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
JOINT_WIDTH = 768
SMALL = Shape(layers=2, width=48, ffn=80, heads=4)
SMALL_VISION = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 2}
SMALL_VISION |= {"image_size": 56, "patch_size": 14}
SMALL_TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
VOCABULARY = 64  # small: the embeddings and the logits of one row take no part in what is measured


def random_llava(
    shape: Shape,
    layers: int,
    device: torch.device,
    dtype: torch.dtype,
    seed: int = 0,
    vision: dict[str, Any] = CLIP_VISION,
    text: dict[str, Any] = CLIP_TEXT,
) -> LlavaLlamaForCausalLM:
    """Build a LLaVA-1.5 with both sides of its CLIP, weights drawn from the usual initialisation.

    Args:
        shape: of the language model.
        layers: decoder layers to build, at most ``shape.layers``.
        vision, text: what CLIP's two configs say; CLIP-L/14 at 336 pixels if not given.
    """
    torch.manual_seed(seed)
    clip = CLIPVisionConfig(**vision)
    with tempfile.TemporaryDirectory() as folder, torch.device(device):
        clip.save_pretrained(folder)
        side = clip.image_size
        processor = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
        processor.save_pretrained(folder)
        config = LlavaConfig(
            vocab_size=VOCABULARY,
            hidden_size=shape.width,
            intermediate_size=shape.ffn,
            num_hidden_layers=layers,
            num_attention_heads=shape.heads,
            max_position_embeddings=4096,
            mm_vision_tower=folder,
            mm_vision_select_layer=-2,
            mm_hidden_size=clip.hidden_size,
            mm_projector_type="mlp2x_gelu",
        )
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, tower_in_checkpoint=True)
        model.get_vision_tower().relevance = _random_relevance(clip.hidden_size, text, dtype)
    return model.eval()


def _random_relevance(vision_width: int, text: dict[str, Any], dtype: torch.dtype) -> ClipRelevance:
    """CLIP's text side and projections, with the embedded model's tokenizer; of the vision side, the width alone."""
    tokenizer = CLIPTokenizer.from_pretrained(Path(checkpoint_path()).parent / "clip-shapes")
    text_config = CLIPTextConfig(**text, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id)
    stub = {"hidden_size": vision_width, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = CLIPConfig(
        text_config=text_config.to_dict(),
        vision_config=CLIPVisionConfig(**stub).to_dict(),
        projection_dim=JOINT_WIDTH,
    )
    return ClipRelevance(CLIPModel(config), tokenizer)
