"""CLIP's vision tower: the features LLaVA reads, and the cues pruners ask for."""

import logging
from collections.abc import Sequence
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

from llava import compat
from llava.layout import SELECT_FEATURES, check_key
from llava.model.checkpoint import naming, read_json, refuse_mismatched, refuse_missing, weight_files
from llava.model.multimodal_encoder.blocks import OF_SELECTED, run_blocks
from llava.model.multimodal_encoder.memory import Memory
from llava.model.multimodal_encoder.processor import check_processor
from llava.model.quiet import quiet_loading
from llava.pruners.cues import CLIP_TEXT_CUES
from llava.selecting.attention import OBJECT_LAYER
from llava.selecting.per_thread import PerThread
from llava.selecting.relevance import ClipRelevance, Embedded

logger = logging.getLogger(__name__)

CLIP_TYPES = ("clip", "clip_vision_model")
TILES_PER_CALL = 64  # bounds the memory of one pass through the tower, whatever the batch


class CLIPVisionTower(nn.Module):
    """LLaVA's vision tower.

    ``forward`` gives features, as in LLaVA. ``cues`` gives features and exactly the cues that are asked for; encoder
    blocks after the selected one never run in either, but for cues of the last block. Of LLaVA's usual layer, the one
    before the last, these need no further block either: its output is all they read.

    Args:
        vision_tower: hub id or folder of a CLIP checkpoint.
        args: the model's config (``mm_vision_select_layer``, ``mm_vision_select_feature``).
        delay_load: True leaves the weights to ``load_model``.
        in_checkpoint: True builds the tower without weights, for a LLaVA checkpoint that stores them itself.

    Attributes:
        memory: of each thread, what it holds of images that it reads again; None reads them again.
    """

    def __init__(self, vision_tower: str, args: Any, delay_load: bool = False, in_checkpoint: bool = False):
        super().__init__()
        self._set_up(vision_tower, args)
        self.cfg_only = read_tower_config(vision_tower)
        if in_checkpoint:
            self._adopt(CLIPVisionModel._from_config(self.cfg_only, dtype=torch.get_default_dtype()))
        elif not delay_load:
            self.load_model()

    @classmethod
    def around(cls, vision: CLIPVisionModel, args: Any, name: str | None = None) -> "CLIPVisionTower":
        """Make a tower of an encoder whose weights and images others bring; ``name`` is where its text side is."""
        tower = cls.__new__(cls)
        nn.Module.__init__(tower)
        tower._set_up(name, args)
        tower.cfg_only = vision.config
        tower.vision_tower = vision.eval().requires_grad_(False)
        tower.is_loaded = True
        return tower

    def _set_up(self, name: str | None, args: Any) -> None:
        self.vision_tower_name = name
        self.select_layer = args.mm_vision_select_layer
        self.select_feature = getattr(args, "mm_vision_select_feature", "patch")
        check_key("mm_vision_select_feature", self.select_feature, SELECT_FEATURES)
        self.is_loaded = False
        self.memory: PerThread[Memory | None] = PerThread()
        self.relevance: ClipRelevance | None = None

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

    def _load(self, part: type[PreTrainedModel], **options: Any) -> Any:
        """Load CLIP or its vision half, every weight of it."""
        if Path(self.vision_tower_name).is_dir():
            weight_files(Path(self.vision_tower_name))
        options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}  # they are refused by name here
        with quiet_loading(), naming(self.vision_tower_name), compat.from_hub(self.vision_tower_name):
            model, report = part.from_pretrained(self.vision_tower_name, **options)
        refuse_missing(set(report["missing_keys"]), self.vision_tower_name)
        refuse_mismatched(report["mismatched_keys"], self.vision_tower_name)
        return model

    def _adopt(self, tower: CLIPVisionModel) -> None:
        name = self.vision_tower_name
        with naming(f"the image processor of {name}"), compat.from_hub(name):
            self.image_processor = CLIPImageProcessorPil.from_pretrained(name)
            check_processor(self.image_processor, tower.config.image_size)
        self.vision_tower = tower.eval().requires_grad_(False)
        self.is_loaded = True

    def _adopt_text_side(self, clip: CLIPModel, text_chunking: str) -> None:
        name = self.vision_tower_name
        with naming(f"the tokenizer of {name}"), compat.from_hub(name):
            tokenizer = CLIPTokenizer.from_pretrained(name)
        self.relevance = ClipRelevance(clip, tokenizer, text_chunking)

    @torch.no_grad()
    def forward(self, images: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        """Return the features of ``images`` (B, 3, H, W): (B, N, C); of a list of images, a list."""
        if isinstance(images, list):
            return [self(image.unsqueeze(0)) for image in images]
        hidden_states, _ = self._encode(images)
        return self._features(hidden_states).to(images.dtype)

    def cues(
        self,
        images: Tensor,
        needs: frozenset[str],
        texts: Sequence[str | None] | None = None,
        object_layer: int = OBJECT_LAYER,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return features and exactly the cues in ``needs`` that are the tower's to give.

        Args:
            images: (B, 3, H, W), tiles of any number of images.
            needs: names of cues; the tower's are those of its blocks and of CLIP's text side.
            texts: the question of each tile, None for a tile without one. Without any, there is no relevance.
            object_layer: the block of ``object_attention``, counted from 1.

        Returns:
            Features (B, N, C), and a dict of the cues as ``VisualCues`` has them, float32; ``last_keys`` are in the
            tower's dtype.
        """
        return self.with_cues(images, needs, self.embed_texts(needs, texts), object_layer)

    def embed_texts(self, needs: frozenset[str], texts: Sequence[str | None] | None) -> dict[str, Tensor]:
        """Return what ``with_cues`` makes the cues of, in ``needs``, that read texts, or nothing.

        Float32 (B, E) each, and ``text_sequence`` (B, M, L, E).

        Raises:
            RuntimeError: CLIP's text side is not loaded.
        """
        if not needs & CLIP_TEXT_CUES or texts is None or all(text is None for text in texts):
            return {}
        if self.relevance is None:
            raise RuntimeError("relevance needs CLIP's text tower: call load_text_tower, or the model's set_pruner")
        return self.relevance.embed(needs, [text or "" for text in texts], self.device)

    @torch.no_grad()
    def with_cues(
        self, images: Tensor, needs: frozenset[str], embedded: Embedded, object_layer: int = OBJECT_LAYER
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As ``cues``, of texts that are embedded, now or while a device computes features; nothing is read back.

        What is embedded besides by names that are not CLIP's is a cue as it is.
        """
        if self.select_feature != "patch":
            raise ValueError("pruning needs mm_vision_select_feature 'patch': with 'cls_patch' [CLS] is a visual token")
        hidden_states, cues = self._encode(images, needs, object_layer)
        embedded = embedded if isinstance(embedded, dict) else embedded()
        own = {name: value for name, value in embedded.items() if name in CLIP_TEXT_CUES}
        if own or ("joint_embeds" in needs and self.relevance is not None):
            cues |= self.relevance.weigh(self._vision.post_layernorm(hidden_states[:, 1:]), own, needs)
        cues |= {name: value for name, value in embedded.items() if name not in CLIP_TEXT_CUES}
        return self._features(hidden_states).to(images.dtype), cues

    def check_cues(self, needs: frozenset[str], object_layer: int = OBJECT_LAYER) -> None:
        """Raise ValueError for cues of blocks that the tower does not have."""
        if self._depth == 0 and (missing := needs & OF_SELECTED):
            raise ValueError(
                f"mm_vision_select_layer {self.select_layer} selects the embeddings: no {', '.join(sorted(missing))}"
            )
        blocks = self.config.num_hidden_layers
        if "object_attention" in needs and not 1 <= object_layer <= blocks:
            valid = f"the vision tower has blocks 1 to {blocks}; object_layer says which is read"
            raise ValueError(f"object_attention of block {object_layer}: {valid}")

    def _encode(
        self, images: Tensor, needs: frozenset[str] = frozenset(), object_layer: int = OBJECT_LAYER
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The output of the selected layer (B, 1 + N, C), and the cues of blocks in ``needs``."""
        memory = self.memory.value
        if memory is None:
            return self._run(images, needs, object_layer)
        return memory.encoded(images, needs, object_layer, self._run)

    def _run(self, images: Tensor, needs: frozenset[str], object_layer: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Run the blocks up to the selected layer, and those behind it that cues are of."""
        parts = [self._encode_part(part, needs, object_layer) for part in images.split(TILES_PER_CALL)]
        if len(parts) == 1:
            return parts[0]
        hidden_states, cues = zip(*parts, strict=True)
        return torch.cat(hidden_states), {name: torch.cat([part[name] for part in cues]) for name in cues[0]}

    def _encode_part(
        self, images: Tensor, needs: frozenset[str], object_layer: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        self.check_cues(needs, object_layer)
        return run_blocks(list(self._vision.encoder.layers), self._embed(images), self._depth, needs, object_layer)

    def _embed(self, images: Tensor) -> Tensor:
        """What the first block reads, (B, 1 + N, C)."""
        return self._vision.pre_layrnorm(self._vision.embeddings(images.to(device=self.device, dtype=self.dtype)))

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


def read_tower_config(name: str) -> CLIPVisionConfig:
    """Return the config of a vision tower, a folder or a hub id.

    Raises:
        FileNotFoundError, ValueError: it is not to be had, broken, or not CLIP's.
    """
    with naming(f"mm_vision_tower {name}"), compat.from_hub(name):
        folder = Path(name)
        raw = read_json(folder / "config.json") if folder.is_dir() else CLIPVisionConfig.get_config_dict(name)[0]
        if raw.get("model_type", "clip") not in CLIP_TYPES:
            raise ValueError(f"its model_type is {raw['model_type']!r}; towers are CLIP's: {', '.join(CLIP_TYPES)}")
        return CLIPVisionConfig.from_pretrained(name)
