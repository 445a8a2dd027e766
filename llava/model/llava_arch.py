"""LLaVA's multimodal part: images into the text they belong to, and both into the language model.

The language-model classes inherit from the two mixins here and add nothing but their backbone.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel, initialization

from llava import compat
from llava.model.decoding import SlotCache, lent
from llava.model.image_side import ImageSide
from llava.model.inputs import check_call
from llava.model.late_selection import LateSelection
from llava.model.multimodal_encoder.builder import build_vision_tower
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower
from llava.model.multimodal_projector.builder import build_vision_projector
from llava.model.prefill import Prefill
from llava.model.prompts import Prompts, needed, on_host
from llava.model.splice import counted_spans, embed_rows, visual_spans
from llava.model.tiles import unpad_image
from llava.selecting.at_layer import CHOOSE
from llava.selecting.options import AS_SET, PruningOptions
from llava.selecting.per_thread import unchanged
from llava.selecting.record import PruneRecord

__all__ = ["LlavaMetaForCausalLM", "LlavaMetaModel", "unpad_image"]

MixedInto: Any = object  # for type checkers, which cannot see the language model and the body that these are parts of
LAYOUT_KEYS = ("image_grid_pinpoints", "mm_patch_merge_type")


class LlavaMetaModel(MixedInto):
    """Adds the vision tower, the projector and the newline token to a language model's body."""

    def __init__(self, config: PretrainedConfig, tower_in_checkpoint: bool | None = None):
        super().__init__(config)
        if not hasattr(config, "mm_vision_tower"):
            return
        if tower_in_checkpoint is None:
            tower_in_checkpoint = bool(getattr(config, "unfreeze_mm_vision_tower", False))
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


class LlavaMetaForCausalLM(ImageSide, MixedInto):
    """Adds images, and the pruning of their tokens, to a causal language model."""

    body_class: type[LlavaMetaModel]
    _native_layout: dict[str, Any] = {}  # what ``fix_layout`` replaced in the config

    def __init__(self, config: PretrainedConfig, tower_in_checkpoint: bool | None = None):
        PreTrainedModel.__init__(self, config)  # the backbone's own class would build a body without images
        self.model = self.body_class(config, tower_in_checkpoint)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_model(self) -> LlavaMetaModel:
        """Return the language model's body."""
        return self.model

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
            position_ids, labels: (B, L) or None.
            attention_mask: (B, L) or None; what it excludes is removed before padding anew.
            images: (B, 3, H, W), (B, tiles, 3, H, W) or a list of (tiles, 3, H, W), in the order of the prompts.
            image_sizes: (width, height) of every image in pixels, for images of several tiles.
            texts: the question of each row, one for all, or None. Pruners that weigh relevance read them.

        Returns:
            LLaVA's six values: ``input_ids`` (None once there are embeddings), ``position_ids``, ``attention_mask``,
            ``past_key_values``, ``inputs_embeds`` and ``labels``; None comes back where None was given. With a
            ``prune_layer`` of 1 or more all visual tokens are there: ``forward`` and ``generate`` prune them later.
        """
        return self.prepare_with_choice(
            input_ids, position_ids, attention_mask, past_key_values, labels, images, image_sizes, texts
        )[:6]

    def prepare_with_choice(
        self, input_ids, position_ids, attention_mask, past_key_values, labels, images, image_sizes, texts
    ) -> tuple:
        """``prepare_inputs_labels_for_multimodal``'s six values, and what is left to choose in the language model.

        The seventh is for ``forward``'s ``choose_tokens``, None with a ``prune_layer`` of 0; once ``forward`` is done,
        its ``shorten`` makes the labels fit the logits.
        """
        if self.get_vision_tower() is None or images is None or input_ids.shape[1] == 1:
            return input_ids, position_ids, attention_mask, past_key_values, None, labels, None
        side = getattr(self.config, "tokenizer_padding_side", "right")
        options = self.pruning  # read once: another thread may set another
        embeds, mask, positions, targets, late, padded = self._splice_batch(
            input_ids, attention_mask, labels, images, image_sizes, texts, side, options
        )
        # Positions with gaps need a mask beside them: without one they read as several sequences in a row. So do
        # rows that are padded in front, and padded ones that are still to be pruned.
        gaps = not options.compact() and options.pruner is not None
        needs_mask = gaps or ((side == "left" or late is not None) and padded)
        mask_dtype = mask.dtype if attention_mask is None else attention_mask.dtype
        return (
            None,
            None if position_ids is None and not gaps else positions,
            None if attention_mask is None and not needs_mask else mask.to(mask_dtype),
            past_key_values,
            embeds,
            None if labels is None else targets,
            late,
        )

    def _splice_batch(self, input_ids, attention_mask, labels, images, image_sizes, texts, side, options, cut=True):
        """Return embeddings, attention mask, position ids and labels of a batch, padded on ``side``.

        The fifth value is what is left to choose in the language model, None if nothing is; the sixth, whether there is
        padding.
        """
        host = on_host(input_ids, attention_mask, labels)
        check_call(self.get_model(), *host, images, image_sizes, texts)
        prompts, batch, late, visual = Prompts.of(*host), None, None, None
        spans = [[] for _ in prompts.ids]
        if images is not None:
            batch, spans = self.plan_prompts(prompts.ids, images, image_sizes, texts, options)
        if batch is not None and not batch.plan.counted:
            visual, late = self.read_batch(batch)
            spans = counted_spans(spans, visual)
        layout = prompts.lay_out(spans, getattr(self.config, "tokenizer_model_max_length", None), side, cut)
        # All that is known before is sent before: afterwards, a copy would wait for the image side.
        words = self.get_model().embed_tokens(layout.words.to(input_ids.device, non_blocking=True))
        placed = layout.to(words.device)
        if batch is not None and visual is None:
            visual, late = self.read_batch(batch)
        self._note_cut(layout.cut, late, batch is not None)
        embeds = embed_rows(placed.sources, words, None if visual is None else visual.embeds, layout.padded)
        position_ids = placed.numbered() if options.compact() else placed.unpruned(visual)
        targets = layout.labels.to(input_ids.device if labels is None else labels.device)
        if late is not None:
            late.place([visual_spans(*row) for row in zip(prompts.ids, spans, strict=True)], placed.mask, targets)
        return embeds, placed.mask, position_ids, targets, late, layout.padded

    def _note_cut(self, cut: list[int], late: LateSelection | None, has_images: bool) -> None:
        """Let the record of this call say how many positions each prompt has lost to the length limit."""
        if late is not None or has_images:
            (late or self.last_prune).cut = cut
        else:
            self.last_prune = PruneRecord(cut=cut) if any(cut) else None

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
        choose_tokens: LateSelection | None = None,
        cache: Any = None,
        **kwargs: Any,
    ):
        """Run the language model on text and images; see ``prepare_inputs_labels_for_multimodal``.

        ``generate`` passes what is left to choose at ``prune_layer`` as ``choose_tokens``; nobody else needs to.
        ``cache`` is what Transformers 5.24 calls ``past_key_values``; either name is taken.
        """
        past_key_values = past_key_values if cache is None else cache
        if isinstance(past_key_values, SlotCache) and past_key_values.get_seq_length():
            return past_key_values.step(super().forward, input_ids, position_ids, attention_mask)
        prefill = self._threads.value.prefill
        prefill = None if prefill is not None and prefill.answered else prefill
        if inputs_embeds is None and prefill is None:
            prepared = self.prepare_with_choice(
                input_ids, position_ids, attention_mask, past_key_values, labels, images, image_sizes, texts
            )
            input_ids, position_ids, attention_mask, past_key_values, inputs_embeds, labels, late = prepared
            choose_tokens = choose_tokens if late is None else late
            if inputs_embeds is not None:
                prefill = Prefill.of(inputs_embeds, self.last_prune, late)
        if prefill is not None:
            prefill.enter(self, super().forward, inputs_embeds, past_key_values)
        attention_mask = needed(attention_mask, self.device, past_key_values)
        late_labels = None if choose_tokens is None else labels  # to be shortened when the kept tokens are known
        asked = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
        asked |= {"return_dict": return_dict, CHOOSE: choose_tokens}
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids}
        given |= {"inputs_embeds": inputs_embeds, "labels": labels if late_labels is None else None}
        given |= {"use_cache": use_cache, "logits_to_keep": logits_to_keep, **compat.cache_argument(past_key_values)}
        given |= {name: value for name, value in asked.items() if value is not None} | kwargs
        replayed = None if self._prompt_pass is None else self._prompt_pass(self, given)
        output = super().forward(**given) if replayed is None else replayed
        if prefill is not None:
            prefill.leave(self, past_key_values, replayed is not None)
        return output if late_labels is None else self._with_loss(output, choose_tokens.shorten(late_labels), kwargs)

    def _with_loss(self, output: Any, labels: Tensor, kwargs: dict[str, Any]) -> Any:
        """Add the loss to an output, which may be a tuple; ``labels`` (B, M) fit its logits."""
        logits = output[0] if isinstance(output, tuple) else output.logits
        loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        if isinstance(output, tuple):
            return (loss, *output)
        output.loss = loss
        return output

    @torch.no_grad()
    def generate(
        self,
        inputs: Tensor | None = None,
        images: Tensor | list[Tensor] | None = None,
        image_sizes: Sequence[tuple[int, int]] | None = None,
        texts: str | Sequence[str | None] | None = None,
        *,
        pruning: PruningOptions | None = AS_SET,
        cut: bool = True,
        **kwargs: Any,
    ) -> Tensor:
        """Generate from a batch of prompts, (B, L) with ``attention_mask`` where they differ in length.

        ``pruning`` is for this call alone, None for plain LLaVA; not given, it is the model's own. With ``cut`` of
        False, a prompt over ``tokenizer_model_max_length`` is a ``PromptTooLong``, where LLaVA cuts it at its end.

        Returns:
            The new token ids alone, (B, L'). ``last_prune`` says what was kept of the images.
        """
        if inputs is None or "inputs_embeds" in kwargs:
            raise NotImplementedError("`inputs_embeds` is made here: pass `inputs`, token ids, and `images`")
        kwargs.pop("position_ids", None)  # the tokens of a row are numbered here, padding left out
        attention_mask = kwargs.pop("attention_mask", None)
        hooks, options, self.last_prune = self._layer_pruning, self.pruning.brought(pruning), None
        embeds, mask, position_ids, _, late, padded = self._splice_batch(
            inputs, attention_mask, None, images, image_sizes, texts, "left", options, cut
        )
        made = {"inputs_embeds": embeds, "position_ids": position_ids}
        made["attention_mask"] = mask.long() if padded else torch.ones(mask.shape, dtype=torch.long)  # on the host
        made |= {} if late is None else {CHOOSE: late}
        thread = self._threads.value
        thread.prefill = prefill = Prefill.of(embeds, self.last_prune, late)
        try:
            with (
                nullcontext() if late is None else unchanged("prune_layer", hooks, lambda: self._layer_pruning),
                lent(None if late is not None else self._decoder, self.config, embeds, kwargs) as cache,
            ):
                output = super().generate(**kwargs, **made, **cache)
        finally:
            thread.prefill = None
        if prefill is not None and not prefill.answered:
            raise compat.not_pruned(f"{type(self).__name__}.generate called no forward with the images")
        return output
