"""CLIP's vision tower: the features LLaVA reads, and the cues pruners ask for."""

import logging
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModel,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from llava.model.checkpoint import refuse_missing, weight_files
from llava.model.multimodal_encoder.clip_relevance import ClipRelevance

logger = logging.getLogger(__name__)

TILES_PER_CALL = 64  # bounds the memory of one pass through the tower, whatever the batch


class CLIPVisionTower(nn.Module):
    """LLaVA's vision tower.

    ``forward`` gives features, as in LLaVA. ``cues`` gives features and exactly the cues that are asked for; encoder
    blocks after the selected one never run in either.

    Args:
        vision_tower: hub id or folder of a CLIP checkpoint.
        args: the model's config (``mm_vision_select_layer``, ``mm_vision_select_feature``).
        delay_load: True leaves the weights to ``load_model``.
        in_checkpoint: True builds the tower without weights, for a LLaVA checkpoint that stores them itself.
    """

    def __init__(self, vision_tower: str, args: Any, delay_load: bool = False, in_checkpoint: bool = False):
        super().__init__()
        self.vision_tower_name = vision_tower
        self.select_layer = args.mm_vision_select_layer
        self.select_feature = getattr(args, "mm_vision_select_feature", "patch")
        if self.select_feature not in ("patch", "cls_patch"):
            raise ValueError(f"mm_vision_select_feature {self.select_feature!r} is not one of patch, cls_patch")
        self.is_loaded = False
        self.relevance: ClipRelevance | None = None
        self.cfg_only = CLIPVisionConfig.from_pretrained(vision_tower)
        if in_checkpoint:
            self._adopt(CLIPVisionModel._from_config(self.cfg_only, dtype=torch.get_default_dtype()))
        elif not delay_load:
            self.load_model()

    def load_model(
        self,
        device_map: Any = None,
        *,
        dtype: torch.dtype | None = None,
        attn_implementation: str | None = None,
        text_chunking: str | None = None,
    ) -> None:
        """Load the tower's weights; with ``text_chunking``, CLIP's text side from the same load."""
        if self.is_loaded:
            logger.warning("%s is already loaded, `load_model` called again: nothing to do", self.vision_tower_name)
            return
        options = {"device_map": device_map, "dtype": dtype or torch.float32}
        if attn_implementation is not None:
            options["attn_implementation"] = attn_implementation
        if text_chunking is None:
            tower = self._load(CLIPVisionModel, **options)
        else:
            clip = self._load(CLIPModel, **options)
            tower = clip.vision_model
            self._adopt_text_side(clip, text_chunking)
        self._adopt(tower)

    def load_text_tower(self, text_chunking: str = "release") -> None:
        """Load CLIP's text side, for a tower whose vision side is loaded already."""
        self._adopt_text_side(self._load(CLIPModel, dtype=torch.float32), text_chunking)

    def _load(self, part: type[PreTrainedModel], **options: Any) -> PreTrainedModel:
        """Load CLIP or its vision half, every weight of it."""
        if Path(self.vision_tower_name).is_dir():
            weight_files(Path(self.vision_tower_name))
        with _quiet_load_report():
            model, report = part.from_pretrained(self.vision_tower_name, output_loading_info=True, **options)
        refuse_missing(set(report["missing_keys"]), self.vision_tower_name)
        return model

    def _adopt(self, tower: CLIPVisionModel) -> None:
        self.image_processor = CLIPImageProcessorPil.from_pretrained(self.vision_tower_name)
        self.vision_tower = tower.eval().requires_grad_(False)
        self.is_loaded = True

    def _adopt_text_side(self, clip: CLIPModel, text_chunking: str) -> None:
        tokenizer = CLIPTokenizer.from_pretrained(self.vision_tower_name)
        self.relevance = ClipRelevance(clip, tokenizer, text_chunking)

    @torch.no_grad()
    def forward(self, images: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        """Return the features of ``images`` (B, 3, H, W): (B, N, C); of a list of images, a list."""
        if isinstance(images, list):
            return [self(image.unsqueeze(0)) for image in images]
        hidden_states, _ = self._encode(images, attention=False)
        return self._features(hidden_states).to(images.dtype)

    @torch.no_grad()
    def cues(
        self, images: Tensor, needs: frozenset[str], texts: Sequence[str | None] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return features and exactly the cues in ``needs``.

        Args:
            images: (B, 3, H, W), tiles of any number of images.
            needs: names of cues; ``cls_attention`` and ``relevance`` are the tower's to give.
            texts: the question of each tile, None for a tile without one. Without any, there is no relevance.

        Returns:
            Features (B, N, C), and a dict of ``cls_attention`` and ``relevance``, float32 (B, N).
        """
        if self.select_feature != "patch":
            raise ValueError("pruning needs mm_vision_select_feature 'patch': with 'cls_patch' [CLS] is a visual token")
        hidden_states, attention = self._encode(images, attention="cls_attention" in needs)
        cues = {} if attention is None else {"cls_attention": attention}
        if "relevance" in needs and texts is not None and any(text is not None for text in texts):
            if self.relevance is None:
                raise RuntimeError("relevance needs CLIP's text tower: call load_text_tower, or the model's set_pruner")
            patches = self._vision.post_layernorm(hidden_states[:, 1:])
            cues["relevance"] = self.relevance(patches, [text or "" for text in texts])
        return self._features(hidden_states).to(images.dtype), cues

    def _encode(self, images: Tensor, attention: bool) -> tuple[Tensor, Tensor | None]:
        """Run the blocks up to the selected layer: its output (B, 1 + N, C), and its [CLS] attention if asked for."""
        parts = [self._encode_part(part, attention) for part in images.split(TILES_PER_CALL)]
        hidden_states, rows = zip(*parts, strict=True)
        return torch.cat(hidden_states), torch.cat(rows) if attention else None

    def _encode_part(self, images: Tensor, attention: bool) -> tuple[Tensor, Tensor | None]:
        vision = self._vision
        hidden_states = vision.pre_layrnorm(vision.embeddings(images.to(device=self.device, dtype=self.dtype)))
        blocks = list(vision.encoder.layers)[: self._depth]
        row = None
        for index, block in enumerate(blocks):
            if attention and index == len(blocks) - 1:
                row = cls_attention(block, hidden_states)
            hidden_states = block(hidden_states, None)
        if attention and row is None:
            raise ValueError(f"mm_vision_select_layer {self.select_layer} selects the embeddings: no [CLS] attention")
        return hidden_states, row

    def _features(self, hidden_states: Tensor) -> Tensor:
        return hidden_states[:, 1:] if self.select_feature == "patch" else hidden_states

    @property
    def _depth(self) -> int:
        """Blocks to run: ``hidden_states[k]`` is the output of block k - 1, counted from either end."""
        blocks = self.config.num_hidden_layers
        depth = self.select_layer if self.select_layer >= 0 else blocks + 1 + self.select_layer
        if not 0 <= depth <= blocks:
            raise ValueError(f"mm_vision_select_layer {self.select_layer}: the tower has {blocks} blocks")
        return depth

    @property
    def _vision(self) -> nn.Module:
        return getattr(self.vision_tower, "vision_model", self.vision_tower)

    @property
    def dummy_feature(self) -> Tensor:
        return torch.zeros(1, self.hidden_size, device=self.device, dtype=self.dtype)

    @property
    def dtype(self) -> torch.dtype:
        return self.vision_tower.dtype

    @property
    def device(self) -> torch.device:
        return self.vision_tower.device

    @property
    def config(self) -> CLIPVisionConfig:
        return self.vision_tower.config if self.is_loaded else self.cfg_only

    @property
    def hidden_size(self) -> int:
        return self.config.hidden_size

    @property
    def num_patches_per_side(self) -> int:
        return self.config.image_size // self.config.patch_size

    @property
    def num_patches(self) -> int:
        return self.num_patches_per_side**2


def cls_attention(block: nn.Module, hidden_states: Tensor) -> Tensor:
    """Recompute one row of a block's attention: [CLS] to every patch, mean over heads.

    Equal to ``output_attentions`` of eager attention, without any other row and under any attention backend. The
    softmax runs over all 1 + N keys; [CLS]'s own column is dropped, not renormalised.

    Args:
        block: a CLIP encoder layer.
        hidden_states: (B, 1 + N, C), the block's input.

    Returns:
        float32 (B, N)
    """
    attention = block.self_attn
    hidden_states = block.layer_norm1(hidden_states)
    split = (*hidden_states.shape[:1], -1, attention.num_heads, attention.head_dim)
    # Products of few rows round by their number. Eight rows where one would do, and a sum where a product would, make
    # an image's attention independent of how many images are beside it.
    query = attention.q_proj(hidden_states[:, :8]).view(split)[:, :1]  # (B, 1, H, C / H)
    key = attention.k_proj(hidden_states).view(split)  # (B, 1 + N, H, C / H)
    logits = (query * key).sum(dim=-1) * attention.scale  # (B, 1 + N, H)
    return logits.softmax(dim=1, dtype=torch.float32)[:, 1:].mean(dim=-1)


@contextmanager
def _quiet_load_report():
    """Silence transformers' list of the other half's weights, which is no news when half a CLIP is loaded."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
