"""From images to what the language model reads of them: encode, prune, merge tiles."""

import logging
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from llava import compat
from llava.model.late_selection import LateSelection
from llava.model.layout import ImageLayout, layouts_of
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower
from llava.model.prefill import Prefill, count_positions
from llava.model.splice import VisualSequence
from llava.model.stages import Stopwatch
from llava.pruners import Pruner
from llava.pruners.base import CLIP_TEXT_CUES, OPTIONAL_CUES
from llava.selecting.at_layer import LayerPruning, prune_at_layer
from llava.selecting.choose import choose
from llava.selecting.options import POSITIONS, PruningOptions, Unfit, check_choice
from llava.selecting.parts import Visual
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
        projector = self.get_model().mm_projector
        dtype = next((parameter.dtype for parameter in projector.parameters()), features.dtype)
        with self.stage("projector"):
            return projector(features if not features.is_floating_point() else features.to(dtype))

    def _encode(self, images: Tensor, texts: list[str | None], pruner: Pruner | None) -> dict[str, Tensor]:
        """Encode tiles (B, 3, H, W), with the cues that ``pruner`` asks for; ``texts`` has one entry per tile.

        There are no ``embeds`` where tokens are merged before the projector, unless the pruner reads them.
        """
        if pruner is None:
            with self.stage("vision"):
                features = self.get_vision_tower()(images)
            return {"embeds": self._project(features)}
        if pruner.needs & CLIP_TEXT_CUES:
            self._ensure_text_tower(self.text_chunking)
            if None in texts:
                self._report_missing_text(pruner)
        with self.stage("vision"):
            features, cues = self.get_vision_tower().cues(images, pruner.needs, texts)
        cues["features"] = features
        if pruner.merges and "embeds" not in pruner.needs:
            return cues
        embeds = self._project(features)  # on another device than the tower when the model is spread over several
        return {"embeds": embeds, **{name: cue.to(embeds.device) for name, cue in cues.items()}}

    def _report_missing_text(self, pruner: Pruner) -> None:
        """Warn once of a pruner that does without relevance; raise ValueError for one that has nothing else."""
        name = type(pruner).__name__
        if pruner.needs & CLIP_TEXT_CUES - OPTIONAL_CUES:
            raise ValueError(f"{name} chooses by the question: `texts` must have one for every image")
        if not self._missing_text_reported:
            logger.warning("%s got no `texts`: pruning without relevance to the question", name)
            self._missing_text_reported = True

    def _visual_sequences(
        self,
        images: Tensor | list[Tensor],
        image_sizes: Sequence[tuple[int, int]] | None,
        texts: list[str | None],
        options: PruningOptions,
    ) -> tuple[list[VisualSequence], LateSelection | None]:
        """Turn images into what the language model reads of each. Fills ``last_prune``, now or when tokens are chosen.

        The second value is what is left to do inside the language model, None if nothing is.
        """
        pruner = options.pruner
        listed = not isinstance(images, Tensor) or images.ndim == 5
        stacks = [image.unsqueeze(0) if image.ndim == 3 else image for image in images]
        tiles = [len(stack) for stack in stacks]
        batch = torch.cat(stacks) if listed else images
        cues = self._encode(
            batch, [text for text, count in zip(texts, tiles, strict=True) for _ in range(count)], pruner
        )
        merge_type = getattr(self.config, "mm_patch_merge_type", "flat") if listed else "flat"
        patches = next(iter(cues.values())).shape[1]
        tile_size = self.get_vision_tower().config.image_size
        layouts = layouts_of(tiles, patches, merge_type, image_sizes, self.config, tile_size)
        newline = getattr(self.get_model(), "image_newline", None)
        visuals = [
            layout.visual({name: cues[name] for name in _read(options, text) & cues.keys()}, newline)
            for layout, text in zip(layouts, texts, strict=True)
        ]
        kept = late = None
        if pruner is not None and options.prune_layer:
            late = LateSelection(
                options, visuals, partial(setattr, self, "last_prune"), partial(self.stage, "selection")
            )
        elif pruner is not None:
            with self.stage("selection"):
                kept, merged = self._choose(options, visuals, layouts, cues["features"])
            cues = cues if merged is None else {"embeds": self._project(merged)}
        self.last_prune = PruneRecord.of(visuals, kept) if late is None else None
        whole = [torch.arange(len(layout.order)) for layout in layouts]
        return [
            VisualSequence(layout.take(cues["embeds"], positions, newline), positions, len(layout.order))
            for layout, positions in zip(layouts, kept or whole, strict=True)
        ], late

    def _choose(
        self, options: PruningOptions, visuals: list[Visual], layouts: list[ImageLayout], features: Tensor
    ) -> tuple[list[Tensor], Tensor | None]:
        """The kept positions of each image; of a pruner that merges, the features (B, N, C) with merged ones, too."""
        if not options.pruner.merges:
            return choose(options, visuals).kept, None
        choice = choose(options, visuals, [layout.take(features) for layout in layouts])
        merged = features.clone()
        for layout, tokens in zip(layouts, choice.merged, strict=True):
            layout.put(merged, tokens)
        return choice.kept, merged

    def sequences_of(
        self, used: list[int], images, image_sizes, texts: list[str | None], options: PruningOptions
    ) -> tuple[dict[int, VisualSequence], LateSelection | None]:
        """Return the visual sequences of the images whose indices are in ``used``, and what is left to choose later."""
        if not used:
            return {}, None
        if len(used) < len(images):
            images = images[used] if isinstance(images, Tensor) else [images[index] for index in used]
            image_sizes = None if image_sizes is None else [image_sizes[index] for index in used]
            texts = [texts[index] for index in used]
        sequences, late = self._visual_sequences(images, image_sizes, texts, options)
        return dict(zip(used, sequences, strict=True)), late


def _read(options: PruningOptions, text: str | None) -> frozenset[str]:
    """The cues that are read of an image with that text; at a decoder layer, states stand for its embeddings."""
    needs = options.needs - {"embeds"} if options.prune_layer else options.needs
    return needs if text is not None else needs - CLIP_TEXT_CUES
