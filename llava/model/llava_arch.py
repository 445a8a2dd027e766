"""LLaVA's multimodal part: encode, prune, merge tiles, splice into the text, pad.

The language-model classes inherit from the two mixins here and add nothing but their backbone.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, initialization

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.mm_utils import get_anyres_image_grid_shape
from llava.model.multimodal_encoder.builder import build_vision_tower
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower
from llava.model.multimodal_projector.builder import build_vision_projector
from llava.model.selection import ImageLayout, PruneRecord, gather_kept, select
from llava.model.splice import VisualSequence, images_of_rows, pad_batch, splice_row, texts_of_images
from llava.model.tiles import NEWLINE, reading_order, unpad_image
from llava.pruners import Pruner, VisualCues

__all__ = ["LlavaMetaForCausalLM", "LlavaMetaModel", "unpad_image"]

logger = logging.getLogger(__name__)

LAYOUT_KEYS = ("image_grid_pinpoints", "mm_patch_merge_type")


class LlavaMetaModel:
    """Adds the vision tower, the projector and the newline token to a language model's body."""

    def __init__(self, config: PretrainedConfig, tower_in_checkpoint: bool | None = None):
        super().__init__(config)
        if not hasattr(config, "mm_vision_tower"):
            return
        if tower_in_checkpoint is None:
            tower_in_checkpoint = getattr(config, "unfreeze_mm_vision_tower", False)
        self.vision_tower = build_vision_tower(config, delay_load=True, in_checkpoint=tower_in_checkpoint)
        self.mm_projector = build_vision_projector(config)
        if "unpad" in getattr(config, "mm_patch_merge_type", "flat"):
            self.image_newline = nn.Parameter(torch.randn(config.hidden_size) * config.hidden_size**-0.5)

    def get_vision_tower(self) -> CLIPVisionTower | None:
        return getattr(self, "vision_tower", None)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self and hasattr(self, "image_newline"):
            initialization.normal_(self.image_newline, std=self.config.hidden_size**-0.5)


class LlavaMetaForCausalLM(ABC):
    """Adds images, and the pruning of their tokens, to a causal language model.

    Attributes:
        pruner: chooses the visual tokens that the language model sees; None is plain LLaVA.
        budget_scope: "tile" or "image" fixes what one selection covers; None leaves it to the pruner.
        positions: "compact" numbers the tokens that are left without gaps, as the releases do; "original" leaves
            every token the position it has without a pruner.
        last_prune: what the last call with images kept.
    """

    pruner: Pruner | None = None
    budget_scope: str | None = None
    positions: str = "compact"
    text_chunking: str = "release"
    last_prune: PruneRecord | None = None
    _missing_text_reported = False
    _native_layout: dict[str, Any] = {}  # what ``fix_layout`` replaced in the config

    @abstractmethod
    def get_model(self) -> LlavaMetaModel:
        """Return the language model's body."""

    def get_vision_tower(self) -> CLIPVisionTower | None:
        return self.get_model().get_vision_tower()

    def set_pruner(self, pruner: Pruner | None) -> None:
        """Swap the pruner at run time; None is plain LLaVA. Loads CLIP's text side when a pruner first asks for it."""
        if pruner is not None and not isinstance(pruner, Pruner):
            raise TypeError(f"set_pruner takes a Pruner or None, not {pruner!r}; resolve_pruner builds one by name")
        tower = self.get_vision_tower()
        if pruner is not None and tower is None:
            raise ValueError("this model has no vision tower: there is nothing to prune")
        if pruner is not None and "relevance" in pruner.needs and tower.is_loaded:
            self._ensure_text_tower()
        self.pruner = pruner

    def _ensure_text_tower(self) -> None:
        if self.get_vision_tower().relevance is None:
            self.get_vision_tower().load_text_tower(self.text_chunking)

    def fix_layout(self) -> None:
        """Give a LLaVA-NeXT model the papers' fixed layout: 2 x 2 tiles, padding kept, no newline tokens."""
        if getattr(self.config, "image_aspect_ratio", None) != "anyres" or self._native_layout:
            return
        self._native_layout = {key: getattr(self.config, key, None) for key in LAYOUT_KEYS}
        side = 2 * self.get_vision_tower().config.image_size
        self.config.image_grid_pinpoints, self.config.mm_patch_merge_type = [[side, side]], "spatial"

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """Save as transformers does, with the checkpoint's own layout and a tower path that holds anywhere."""
        stored = dict(self._native_layout)
        if self.get_vision_tower() is not None:
            stored["mm_vision_tower"] = self.get_vision_tower().vision_tower_name
        current = {key: getattr(self.config, key) for key in stored}
        try:
            self.config.update(stored)
            super().save_pretrained(*args, **kwargs)
        finally:
            self.config.update(current)

    def encode_images(self, images: Tensor) -> Tensor:
        """Return the projected features of ``images`` (B, 3, H, W): (B, N, D), nothing pruned."""
        return self._project(self.get_vision_tower()(images))

    def _project(self, features: Tensor) -> Tensor:
        projector = self.get_model().mm_projector
        dtype = next((parameter.dtype for parameter in projector.parameters()), features.dtype)
        return projector(features if not features.is_floating_point() else features.to(dtype))

    def _encode(self, images: Tensor, texts: list[str | None]) -> VisualCues:
        """Encode tiles (B, 3, H, W), with the cues that the pruner asks for; ``texts`` has one entry per tile."""
        if self.pruner is None:
            features = self.get_vision_tower()(images)
            return VisualCues(features=features, embeds=self._project(features))
        if "relevance" in self.pruner.needs:
            self._ensure_text_tower()
            if None in texts and not self._missing_text_reported:
                name = type(self.pruner).__name__
                logger.warning("%s got no `texts`: pruning without relevance to the question", name)
                self._missing_text_reported = True
        features, cues = self.get_vision_tower().cues(images, self.pruner.needs, texts)
        embeds = self._project(features)  # on another device than the tower when the model is spread over several
        cues = {name: cue.to(embeds.device) for name, cue in {"features": features, **cues}.items()}
        return VisualCues(embeds=embeds, **cues)

    def _layouts(
        self, tiles: list[int], patches: int, merge_type: str, image_sizes: Sequence[tuple[int, int]] | None
    ) -> list[ImageLayout]:
        """Return the merged sequence of every image, from its number of tiles and the patches of a tile."""
        tile_size = self.get_vision_tower().config.image_size
        layouts, first = [], 0
        for index, count in enumerate(tiles):
            grid = size = None
            if count > 1 and merge_type != "flat":
                if image_sizes is None:
                    raise ValueError("images of several tiles need image_sizes, the (width, height) of each in pixels")
                size = tuple(image_sizes[index])
                grid = get_anyres_image_grid_shape(size, self.config.image_grid_pinpoints, tile_size)
            order = reading_order(count, patches, merge_type, grid, size)
            layouts.append(ImageLayout(order, count, first, newlines=merge_type == "spatial_unpad"))
            first += count
        return layouts

    def _visual_sequences(
        self, images: Tensor | list[Tensor], image_sizes: Sequence[tuple[int, int]] | None, texts: list[str | None]
    ) -> list[VisualSequence]:
        """Turn images into what the language model reads of each. Fills ``last_prune``."""
        listed = not isinstance(images, Tensor) or images.ndim == 5
        stacks = [image.unsqueeze(0) if image.ndim == 3 else image for image in images]
        tiles = [len(stack) for stack in stacks]
        batch = torch.cat(stacks) if listed else images
        cues = self._encode(batch, [text for text, count in zip(texts, tiles, strict=True) for _ in range(count)])
        merge_type = getattr(self.config, "mm_patch_merge_type", "flat") if listed else "flat"
        layouts = self._layouts(tiles, cues.embeds.shape[1], merge_type, image_sizes)
        newline = getattr(self.get_model(), "image_newline", None)
        keep = None
        kept = [torch.arange(len(layout.order)) for layout in layouts]
        if self.pruner is not None:
            has_text = [text is not None for text in texts]
            kept, keep = select(self.pruner, cues, layouts, has_text, newline, self.budget_scope)
        self.last_prune = PruneRecord(
            keep=keep,
            visual_tokens=[len(positions) for positions in kept],
            newline_tokens=[
                int((layout.order[positions.cpu()] == NEWLINE).sum())
                for layout, positions in zip(layouts, kept, strict=True)
            ],
            tokens_before=[len(layout.order) for layout in layouts],
        )
        return [
            VisualSequence(gather_kept(cues.embeds, layout, positions, newline), positions, len(layout.order))
            for layout, positions in zip(layouts, kept, strict=True)
        ]

    def _sequences_of(self, used: list[int], images, image_sizes, texts: list[str | None]) -> dict[int, VisualSequence]:
        """Return the visual sequences of the images whose indices are in ``used``."""
        if image_sizes is not None and len(image_sizes) != len(images):
            raise ValueError(f"image_sizes has {len(image_sizes)} entries for {len(images)} images")
        if not used:
            return {}
        if len(used) < len(images):
            images = images[used] if isinstance(images, Tensor) else [images[index] for index in used]
            image_sizes = None if image_sizes is None else [image_sizes[index] for index in used]
            texts = [texts[index] for index in used]
        return dict(zip(used, self._visual_sequences(images, image_sizes, texts), strict=True))

    def prepare_inputs_labels_for_multimodal(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None,
        attention_mask: Tensor | None,
        past_key_values: Any,
        labels: Tensor | None,
        images: Tensor | list[Tensor] | None,
        image_sizes: Sequence[tuple[int, int]] | None = None,
        texts: str | Sequence[str | None] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, Any, Tensor | None, Tensor | None]:
        """Replace the image tokens of a batch by the embeddings of the visual tokens that are kept.

        Args:
            input_ids: (B, L), ``IMAGE_TOKEN_INDEX`` where an image stands.
            position_ids: (B, L) or None.
            attention_mask: (B, L) or None; what it excludes is removed before padding anew.
            past_key_values: passed through.
            labels: (B, L) or None.
            images: (B, 3, H, W), (B, tiles, 3, H, W) or a list of (tiles, 3, H, W), in the order of the prompts.
            image_sizes: (width, height) of every image in pixels, for images of several tiles.
            texts: the question of each row, one for all, or None. Pruners that weigh relevance read them.

        Returns:
            LLaVA's six values: ``input_ids`` (None once there are embeddings), ``position_ids``, ``attention_mask``,
            ``past_key_values``, ``inputs_embeds`` and ``labels``; None comes back where None was given.
        """
        if self.get_vision_tower() is None or images is None or input_ids.shape[1] == 1:
            return input_ids, position_ids, attention_mask, past_key_values, None, labels
        side = getattr(self.config, "tokenizer_padding_side", "right")
        embeds, mask, positions, targets = self._splice_batch(
            input_ids, attention_mask, labels, images, image_sizes, texts, side
        )
        # Positions with gaps need a mask beside them: without one they read as several sequences in a row. So do
        # rows that are padded in front.
        gaps = self.positions == "original" and self.pruner is not None
        needs_mask = gaps or (side == "left" and not mask.all())
        mask_dtype = mask.dtype if attention_mask is None else attention_mask.dtype
        return (
            None,
            None if position_ids is None and not gaps else positions,
            None if attention_mask is None and not needs_mask else mask.to(mask_dtype),
            past_key_values,
            embeds,
            None if labels is None else targets,
        )

    def _splice_batch(self, input_ids, attention_mask, labels, images, image_sizes, texts, padding_side):
        """Return ``inputs_embeds``, attention mask, position ids and labels of a batch, padded on ``padding_side``."""
        real = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        labels = torch.full_like(input_ids, IGNORE_INDEX) if labels is None else labels
        ids = [row[keep] for row, keep in zip(input_ids, real, strict=True)]
        targets = [row[keep] for row, keep in zip(labels, real, strict=True)]
        shown, sequences = [[] for _ in ids], {}
        if images is not None:
            shown = images_of_rows(ids, len(images))
            texts = texts_of_images(texts, shown, len(images))
            used = [image for indices in shown for image in indices]  # without LLaVA's placeholders
            sequences = self._sequences_of(used, images, image_sizes, texts)
        embed_tokens = self.get_model().embed_tokens
        rows = [
            splice_row(row, target, [sequences[image] for image in indices], embed_tokens)
            for row, target, indices in zip(ids, targets, shown, strict=True)
        ]
        limit = getattr(self.config, "tokenizer_model_max_length", None)
        if limit is not None and any(len(embeds) > limit for embeds, _, _ in rows):
            logger.warning("prompts longer than tokenizer_model_max_length=%d were cut at their end", limit)
        embeds, targets, positions = zip(*([part[:limit] for part in row] for row in rows), strict=True)
        if self.positions == "compact":
            positions = [torch.arange(len(row), device=row.device) for row in positions]
        embeds, targets, position_ids, mask = pad_batch(embeds, targets, positions, padding_side)
        return embeds, mask, position_ids, targets

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        images: Tensor | list[Tensor] | None = None,
        image_sizes: Sequence[tuple[int, int]] | None = None,
        return_dict: bool | None = None,
        texts: str | Sequence[str | None] | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ):
        """Run the language model on text and images; see ``prepare_inputs_labels_for_multimodal``."""
        if inputs_embeds is None:
            (input_ids, position_ids, attention_mask, past_key_values, inputs_embeds, labels) = (
                self.prepare_inputs_labels_for_multimodal(
                    input_ids, position_ids, attention_mask, past_key_values, labels, images, image_sizes, texts
                )
            )
        asked = {
            "output_attentions": output_attentions,
            "output_hidden_states": output_hidden_states,
            "return_dict": return_dict,
        }
        return super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            labels=labels,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            **{name: value for name, value in asked.items() if value is not None},
            **kwargs,
        )

    @torch.no_grad()
    def generate(
        self,
        inputs: Tensor | None = None,
        images: Tensor | list[Tensor] | None = None,
        image_sizes: Sequence[tuple[int, int]] | None = None,
        texts: str | Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Generate from a batch of prompts, (B, L) with ``attention_mask`` where they differ in length.

        Returns:
            The new token ids alone, (B, L'). ``last_prune`` says what was kept of the images.
        """
        if inputs is None or "inputs_embeds" in kwargs:
            raise NotImplementedError("`inputs_embeds` is made here: pass `inputs`, token ids, and `images`")
        kwargs.pop("position_ids", None)  # the tokens of a row are numbered here, padding left out
        attention_mask = kwargs.pop("attention_mask", None)
        self.last_prune = None
        if images is None and (inputs == IMAGE_TOKEN_INDEX).any():
            raise ValueError("the prompt shows an <image>, but `images` is None")
        embeds, mask, position_ids, _ = self._splice_batch(
            inputs, attention_mask, None, images, image_sizes, texts, "left"
        )
        return super().generate(inputs_embeds=embeds, attention_mask=mask.long(), position_ids=position_ids, **kwargs)
