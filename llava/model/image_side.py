"""From images to what the language model reads of them: encode, prune, merge tiles."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from llava import compat
from llava.model.encoding import ImagePlan, object_layer
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower
from llava.model.multimodal_encoder.memory import OF_A_LAYER, Memory
from llava.model.prefill import Prefill, count_positions
from llava.model.reading import PLANS, ImageReading
from llava.model.replay import Recent
from llava.model.stages import Stopwatch
from llava.pruners import Pruner
from llava.pruners.cues import CLIP_TEXT_CUES
from llava.selecting.at_layer import LayerPruning, prune_at_layer
from llava.selecting.options import POSITIONS, PruningOptions, Unfit, check_choice
from llava.selecting.per_thread import PerThread
from llava.selecting.record import PruneRecord

LOADING_TEXT_TOWER = threading.Lock()  # one thread loads what several ask for


@dataclass
class ThreadState:
    """What a model knows of the calls of one thread."""

    last_prune: PruneRecord | None = None
    stopwatch: Stopwatch | None = None
    prefill: Prefill | None = None  # of the ``generate`` that is under way
    memory: Memory | None = None  # of images that are read again


def _entry(name: str) -> property:
    """An entry of ``pruning`` as an attribute of its own; its value is checked when it is set."""
    return property(lambda model: model._said(name), lambda model, value: model._say(name, value))


def _of_thread(name: str) -> property:
    """What a model knows of the calls of the thread that asks."""
    return property(
        lambda model: getattr(model._threads.value, name),
        lambda model, value: setattr(model._threads.value, name, value),
    )


class ImageSide(ImageReading):
    """The part of a LLaVA model that knows of images; a mixin beside a causal language model.

    Several threads may call one model at the same time: what belongs to a call is its thread's.

    Attributes:
        pruning: how calls are pruned that do not bring options of their own. ``pruner``, ``budget_scope``,
            ``text_chunking``, ``positions`` and ``prune_layer`` are its entries, each of which can be set by itself, in
            any order: those that do not go together are a ValueError of the next call.
        word_tokenizer: the language model's, for pruners that read the words of a question.
        erank_refs: by tokens per tile, what ``erank_ref`` is for budgets that say none; the checkpoint brings it.
        last_prune: what the last call with images of this thread kept.
        stopwatch: times the stages of every call of this thread, None times nothing.
    """

    _pruning = PruningOptions()
    _waiting: Mapping[str, Any] = {}  # entries that do not go with the others as they are yet
    _layer_pruning: LayerPruning | None = None

    pruner = _entry("pruner")
    budget_scope = _entry("budget_scope")
    text_chunking = _entry("text_chunking")
    last_prune = _of_thread("last_prune")
    stopwatch = _of_thread("stopwatch")
    memory = _of_thread("memory")

    def post_init(self) -> None:
        super().post_init()
        compat.warn_if_newer()
        self.start_reading()
        count_positions(self.get_model())

    def start_reading(self) -> None:
        """Make what calls are kept in, before the first."""
        self._threads = PerThread(ThreadState)
        self._plans: Recent[ImagePlan] = Recent(PLANS)

    @property
    def pruning(self) -> PruningOptions:
        """How calls are pruned; set, it is checked against the model, and CLIP's text side is loaded where it is read.

        With a ``prune_layer`` of 1 or more, ``embeds`` are the hidden states that the layer is given, and pruning needs
        a dynamic cache or none. ValueError is raised for a layer that is not there, or a model without a vision tower.
        """
        return replace(self._pruning, **self._waiting) if self._waiting else self._pruning

    @pruning.setter
    def pruning(self, options: PruningOptions) -> None:
        options.completed(self.erank_refs)  # an error now is told to who sets them
        tower, layer = self.get_vision_tower(), options.prune_layer
        if options.pruner is not None and tower is None:
            raise ValueError("this model has no vision tower: there is nothing to prune")
        if tower is not None and tower.is_loaded:
            if tower.relevance is not None and tower.relevance.text_chunking != options.text_chunking:
                tower.relevance = None  # it remembers texts, cut as before
            tower.check_cues(options.needs, object_layer(options))
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

    @contextmanager
    def images_read_once(self, options: Sequence[PruningOptions]) -> Iterator[None]:
        """Within it, images that this thread shows again are not encoded again, however they are pruned.

        What is captured in CUDA graphs is encoded as ever.

        Args:
            options: how the images will be pruned, by one call or another.
        """
        if self.cuda_graphs or self.get_vision_tower() is None:
            yield
            return
        needs = frozenset().union(*(each.needs for each in options))
        layers = {object_layer(each) for each in options if each.needs & OF_A_LAYER}
        of_tower, before = self.get_vision_tower().memory, self.memory
        self.memory = of_tower.value = Memory(needs, *(layers if len(layers) == 1 else ()))
        try:
            yield
        finally:
            self.memory = of_tower.value = before

    def get_vision_tower(self) -> CLIPVisionTower | None:
        return self.get_model().get_vision_tower()

    def set_pruner(self, pruner: Pruner | None) -> None:
        """Swap the pruner at run time; None is plain LLaVA. Loads CLIP's text side when a pruner first asks for it."""
        self.pruner = pruner

    def _ensure_text_tower(self, text_chunking: str) -> None:
        with LOADING_TEXT_TOWER:
            if self.get_vision_tower().relevance is None:
                self.get_vision_tower().load_text_tower(text_chunking)
