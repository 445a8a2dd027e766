"""From images to what the language model reads of them: encode, prune, merge tiles."""

import logging
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from llava import compat
from llava.model.encoding import ImageBatch, encode, plan_images
from llava.model.late_selection import LateSelection
from llava.model.layout import layouts_of
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower
from llava.model.prefill import Prefill, count_positions
from llava.model.splice import Span, VisualBatch, images_of_rows, spans_of, texts_of_images
from llava.model.stages import Stopwatch
from llava.pruners import Pruner
from llava.pruners.base import CLIP_TEXT_CUES, OPTIONAL_CUES
from llava.selecting.at_layer import LayerPruning, prune_at_layer
from llava.selecting.choose import choose
from llava.selecting.options import POSITIONS, PruningOptions, Unfit, check_choice
from llava.selecting.parts import judges_newlines
from llava.selecting.per_thread import PerThread
from llava.selecting.record import PruneRecord

logger = logging.getLogger(__name__)

LOADING_TEXT_TOWER = threading.Lock()  # one thread loads what several ask for


@dataclass
class ThreadState:
    """What a model knows of the calls of one thread."""

    last_prune: PruneRecord | None = None
    stopwatch: Stopwatch | None = None
    prefill: Prefill | None = None  # of the ``generate`` that is under way


def _entry(name: str) -> property:
    """An entry of ``pruning`` as an attribute of its own; its value is checked when it is set."""
    return property(lambda model: model._said(name), lambda model, value: model._say(name, value))


def _of_thread(name: str) -> property:
    """What a model knows of the calls of the thread that asks."""
    return property(
        lambda model: getattr(model._threads.value, name),
        lambda model, value: setattr(model._threads.value, name, value),
    )


class ImageSide:
    """The part of a LLaVA model that knows of images; a mixin beside a causal language model.

    Several threads may call one model at the same time: what belongs to a call is its thread's.

    Attributes:
        pruning: how calls are pruned that do not bring options of their own. ``pruner``, ``budget_scope``,
            ``text_chunking``, ``positions`` and ``prune_layer`` are its entries, each of which can be set by itself, in
            any order: those that do not go together are a ValueError of the next call.
        last_prune: what the last call with images of this thread kept.
        stopwatch: times the stages of every call of this thread, None times nothing.
    """

    _pruning = PruningOptions()
    _waiting: Mapping[str, Any] = {}  # entries that do not go with the others as they are yet
    _layer_pruning: LayerPruning | None = None
    _missing_text_reported = False

    pruner = _entry("pruner")
    budget_scope = _entry("budget_scope")
    text_chunking = _entry("text_chunking")
    last_prune = _of_thread("last_prune")
    stopwatch = _of_thread("stopwatch")

    def post_init(self) -> None:
        super().post_init()
        compat.warn_if_newer()
        self._threads = PerThread(ThreadState)
        count_positions(self.get_model())

    @property
    def pruning(self) -> PruningOptions:
        """How calls are pruned; set, it is checked against the model, and CLIP's text side is loaded where it is read.

        With a ``prune_layer`` of 1 or more, ``embeds`` are the hidden states that the layer is given, and pruning needs
        a dynamic cache or none. ValueError is raised for a layer that is not there, or a model without a vision tower.
        """
        return replace(self._pruning, **self._waiting) if self._waiting else self._pruning

    @pruning.setter
    def pruning(self, options: PruningOptions) -> None:
        tower, layer = self.get_vision_tower(), options.prune_layer
        if options.pruner is not None and tower is None:
            raise ValueError("this model has no vision tower: there is nothing to prune")
        if tower is not None and tower.is_loaded:
            if tower.relevance is not None and tower.relevance.text_chunking != options.text_chunking:
                tower.relevance = None  # it remembers texts, cut as before
            if options.needs & CLIP_TEXT_CUES:
                self._ensure_text_tower(options.text_chunking)
        before, hooks = self._layer_pruning, None
        if layer:
            hooks = before if layer == self._pruning.prune_layer else prune_at_layer(self.get_model(), layer)
        self._pruning, self._waiting = options, {}
        self._layer_pruning = hooks  # last: a call that reads it first finds out that it changed
        if before is not None and before is not hooks:
            before.remove()

    def _said(self, name: str) -> Any:
        return self._waiting.get(name, getattr(self._pruning, name))

    def _say(self, name: str, value: Any) -> None:
        entries = {**self._waiting, name: value}
        try:
            self.pruning = replace(self._pruning, **entries)
        except Unfit:
            self._waiting = entries

    @property
    def prune_layer(self) -> int:
        """The first decoder layer that sees the kept tokens alone; 0, the default, prunes before the language model."""
        return self._said("prune_layer")

    @prune_layer.setter
    def prune_layer(self, layer: int) -> None:
        prune_at_layer(self.get_model(), layer).remove()  # says which layers there are
        self._say("prune_layer", layer)

    @property
    def positions(self) -> str:
        """Whether tokens that are left are numbered without gaps, "compact", as in the releases, or have the positions
        that they have without a pruner, "original", as they do behind a decoder layer.
        """
        return "original" if self.prune_layer else self._said("positions") or "compact"

    @positions.setter
    def positions(self, positions: str) -> None:
        check_choice("positions", positions, POSITIONS)
        self._say("positions", None if positions == "compact" else positions)  # the model's own way

    def get_vision_tower(self) -> CLIPVisionTower | None:
        return self.get_model().get_vision_tower()

    def set_pruner(self, pruner: Pruner | None) -> None:
        """Swap the pruner at run time; None is plain LLaVA. Loads CLIP's text side when a pruner first asks for it."""
        self.pruner = pruner

    def _ensure_text_tower(self, text_chunking: str) -> None:
        with LOADING_TEXT_TOWER:
            if self.get_vision_tower().relevance is None:
                self.get_vision_tower().load_text_tower(text_chunking)

    def encode_images(self, images: Tensor) -> Tensor:
        """Return the projected features of ``images`` (B, 3, H, W): (B, N, D), nothing pruned."""
        return self._project(self.get_vision_tower()(images))

    def stage(self, name: str) -> AbstractContextManager[None]:
        """What a stage of ``llava.model.stages.STAGES`` runs under."""
        stopwatch = self.stopwatch
        return nullcontext() if stopwatch is None else stopwatch.stage(name)

    def _project(self, features: Tensor) -> Tensor:
        with self.stage("projector"):
            return self._projected(features)

    def _projected(self, features: Tensor) -> Tensor:
        projector = self.get_model().mm_projector
        dtype = next((parameter.dtype for parameter in projector.parameters()), features.dtype)
        return projector(features if not features.is_floating_point() else features.to(dtype))

    def _report_missing_text(self, pruner: Pruner) -> None:
        """Warn once of a pruner that does without relevance; raise ValueError for one that has nothing else."""
        name = type(pruner).__name__
        if pruner.needs & CLIP_TEXT_CUES - OPTIONAL_CUES:
            raise ValueError(f"{name} chooses by the question: `texts` must have one for every image")
        if not self._missing_text_reported:
            logger.warning("%s got no `texts`: pruning without relevance to the question", name)
            self._missing_text_reported = True

    def plan_prompts(
        self, prompts: list[Tensor], images, image_sizes, texts, options: PruningOptions
    ) -> tuple[ImageBatch | None, list[list[Span]]]:
        """Plan how the images are read that prompts (L,) show, None where they show none; and where each will lie."""
        shown = images_of_rows(prompts, len(images))
        texts = texts_of_images(texts, shown, len(images))
        used = [image for indices in shown for image in indices]  # without LLaVA's placeholders
        if not used:
            return None, shown
        if len(used) < len(images):
            images = images[used] if isinstance(images, Tensor) else [images[index] for index in used]
            image_sizes = None if image_sizes is None else [image_sizes[index] for index in used]
            texts = [texts[index] for index in used]
        batch = self.plan_batch(images, image_sizes, texts, options)
        spans = spans_of(batch.plan.counts, batch.plan.lengths, whole=batch.plan.choice is None)
        of_image = dict(zip(used, spans, strict=True))
        return batch, [[of_image[image] for image in indices] for indices in shown]

    def plan_batch(self, images, image_sizes, texts: list[str | None], options: PruningOptions) -> ImageBatch:
        """Plan how images are read, as ``prepare_inputs_labels_for_multimodal`` is given them, with a text for each."""
        listed = not isinstance(images, Tensor) or images.ndim == 5
        stacks = [image.unsqueeze(0) if image.ndim == 3 else image for image in images]
        tiles = [len(stack) for stack in stacks]
        tower = self.get_vision_tower()
        merge_type = getattr(self.config, "mm_patch_merge_type", "flat") if listed else "flat"
        patches = tower.num_patches + (tower.select_feature != "patch")
        layouts = layouts_of(tiles, patches, merge_type, image_sizes, self.config, tower.config.image_size)
        weights = next(self.get_model().mm_projector.parameters(), None)
        plan = plan_images(options, layouts, [text is not None for text in texts])
        plan = plan if weights is None or weights.is_meta else plan.to(weights.device)
        of_tiles = [text for text, count in zip(texts, tiles, strict=True) for _ in range(count)]
        return ImageBatch(plan, torch.cat(stacks) if listed else images, of_tiles)

    def read_batch(self, batch: ImageBatch) -> tuple[VisualBatch, LateSelection | None]:
        """Turn images into what the language model reads of them. Fills ``last_prune``, now or when tokens are chosen.

        The second value is what is left to do inside the language model, None if nothing is.
        """
        plan, pruner = batch.plan, batch.plan.options.pruner
        embedded = self._embed_texts(batch.texts, pruner)
        newline = getattr(self.get_model(), "image_newline", None)
        if not plan.in_one_pass:
            return self._read_in_parts(batch, embedded, newline)
        embeds, positions = encode(
            plan, self.get_vision_tower(), self._projected, batch.pixels, embedded, newline, self.stage
        )
        kept = None if positions is None else list(positions.split(plan.counts))
        self.last_prune = PruneRecord.of(plan.visuals(), kept, pruner is not None and judges_newlines(pruner))
        return VisualBatch(embeds, positions, plan.counts, plan.lengths), None

    def _embed_texts(self, texts: list[str | None], pruner: Pruner | None) -> dict[str, Tensor]:
        if pruner is None or not pruner.needs & CLIP_TEXT_CUES:
            return {}
        self._ensure_text_tower(self.text_chunking)
        if None in texts:
            self._report_missing_text(pruner)
        with self.stage("vision"):
            return self.get_vision_tower().embed_texts(pruner.needs, texts)

    def _read_in_parts(
        self, batch: ImageBatch, embedded: dict[str, Tensor], newline: Tensor | None
    ) -> tuple[VisualBatch, LateSelection | None]:
        """As ``read_batch``, for pruners that merge, which do so before the projector, and for a decoder layer."""
        plan, options = batch.plan, batch.plan.options
        cues = self._encode(batch.pixels, embedded, options.pruner)
        visuals = plan.visuals(cues, newline)
        if options.prune_layer:
            late = LateSelection(
                options, visuals, partial(setattr, self, "last_prune"), partial(self.stage, "selection")
            )
            self.last_prune = None
            return VisualBatch(
                plan.gather(cues["embeds"], [None] * len(visuals), newline), None, plan.counts, plan.lengths
            ), late
        with self.stage("selection"):
            choice = choose(options, visuals, [layout.take(cues["features"]) for layout in plan.layouts])
            merged = cues["features"].clone()
            for layout, tokens in zip(plan.layouts, choice.merged, strict=True):
                layout.put(merged, tokens)
        self.last_prune = PruneRecord.of(visuals, choice.kept, judged=False)
        embeds, positions = self._project(merged), torch.cat(choice.kept)
        return VisualBatch(plan.gather(embeds, choice.kept, newline), positions, plan.counts, plan.lengths), None

    def _encode(self, images: Tensor, embedded: dict[str, Tensor], pruner: Pruner) -> dict[str, Tensor]:
        """Encode tiles (B, 3, H, W), with the cues that ``pruner`` asks for.

        There are no ``embeds`` where tokens are merged before the projector, unless the pruner reads them.
        """
        with self.stage("vision"):
            features, cues = self.get_vision_tower().with_cues(images, pruner.needs, embedded)
        cues["features"] = features
        if pruner.merges and "embeds" not in pruner.needs:
            return cues
        embeds = self._project(features)  # on another device than the tower when the model is spread over several
        return {"embeds": embeds, **{name: cue.to(embeds.device) for name, cue in cues.items()}}
