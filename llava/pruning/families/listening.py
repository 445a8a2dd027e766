"""How cues are noted while a model encodes: hooks on its encoder's blocks and on what reads their output."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from llava import compat
from llava.selecting.attention import (
    LAST_BLOCK_CUES,
    SELECTED_BLOCK_CUES,
    cls_row,
    cues_of,
    queries_and_keys,
    received,
)
from llava.selecting.per_thread import PerThread

Asks = Callable[[str], Mapping[str, Any]]
"""How a pruner wants a cue made, as its ``asks`` says it."""


@dataclass
class Tape:
    """What is noted while a thread encodes."""

    reader: nn.Module  # whose input are the features
    wanted: dict[int, set[str]]  # names of cues by the identity of the block that they are from
    cues: dict[str, Tensor] = field(default_factory=dict)
    heard: set[int] = field(default_factory=set)  # the wanted blocks that ran


def usual(cue: str) -> Mapping[str, Any]:
    """``Asks`` of a pruner that wants every cue made in the usual way."""
    return {}


class Listening:
    """The part of a ``Family`` that listens to its encoders."""

    attention: str  # "cls" or "received", what stands for the [CLS] attention

    def __init__(self) -> None:
        self._tape: PerThread[Tape | None] = PerThread()
        self.unheard: PerThread[bool | None] = PerThread()  # whether images were encoded and not recorded
        self._handles: list[Any] = []

    @contextmanager
    def recording(
        self, modality: str, needs: frozenset[str], layer: int | list[int] | None = None, asks: Asks = usual
    ) -> Iterator[dict[str, Tensor]]:
        """Note the encoder's features, and the cues of its blocks that are needed, while this thread encodes.

        ``layer`` is the call's own ``vision_feature_layer``. RuntimeError for an encoder whose blocks are not heard.
        """
        if not self._handles:
            self.listen()
        wanted: dict[int, set[str]] = {}
        for names, block in self._sources(modality, needs, layer, asks):
            wanted[id(block)] = wanted.get(id(block), set()) | names
        self._tape.value = tape = Tape(self.reader(modality), wanted)
        try:
            yield tape.cues
        finally:
            self._tape.value = None
        if not tape.heard >= {block for block, names in wanted.items() if names}:
            raise compat.not_pruned(f"{type(self.tower(modality)).__name__} did not call its blocks as modules")
        if "features" in tape.cues:
            with torch.no_grad():
                tape.cues.update(self.cues_of_features(tape.cues["features"], needs, asks))

    def _sources(
        self, modality: str, needs: frozenset[str], layer: int | list[int] | None, asks: Asks
    ) -> Iterator[tuple[frozenset[str], nn.Module]]:
        """Which of the needed cues are of which block."""
        yield SELECTED_BLOCK_CUES & needs, self.attention_block(modality, layer)
        yield LAST_BLOCK_CUES & needs, self.last_block(modality)
        yield needs & {"deep_attention"}, self.selected_block(modality, layer)
        if "object_attention" in needs:
            yield frozenset({"object_attention"}), self.object_block(modality, asks("object_attention"))

    def listen(self) -> None:
        """Hook what ``recording`` notes into the encoders, once for all threads; nothing is noted outside of it."""
        heard: set[int] = set()
        for modality in self.modalities:
            blocks = [(block, self._note_cues) for block in self.blocks(modality)]
            for module, note in ((self.reader(modality), self._note_features), *blocks):
                if id(module) not in heard:  # images and videos may have one encoder
                    heard.add(id(module))
                    self._handles.append(module.register_forward_pre_hook(note, with_kwargs=True))

    def forget(self) -> None:
        """Take off what ``listen`` hooked in."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _note_features(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tape = self._tape.value
        if tape is None:
            self.unheard.value = True
        elif module is tape.reader:
            tape.cues["features"] = (args[0] if args else next(iter(kwargs.values()))).detach()

    def _note_cues(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tape = self._tape.value
        if tape is not None and tape.wanted.get(id(block)):
            tape.heard.add(id(block))
            with torch.no_grad():
                tape.cues.update(self.block_cues(block, tape.wanted[id(block)], *args, **kwargs))

    def block_cues(
        self, block: nn.Module, names: set[str], hidden_states: Tensor, *_: Any, **__: Any
    ) -> dict[str, Tensor]:
        """The cues of a block from its input, (B, N) or (B, N, C), [CLS] among the N if there is one."""
        return self.cues_of(names, *self.queries_and_keys(block, hidden_states))

    def queries_and_keys(self, block: nn.Module, hidden_states: Tensor) -> tuple[Tensor, Tensor, float]:
        """Recompute a block's queries and keys, both (B, N, H, d), from its input; and the scale of their product."""
        return queries_and_keys(block, hidden_states)

    def cues_of(self, names: set[str], query: Tensor, key: Tensor, scale: float) -> dict[str, Tensor]:
        """The cues in ``names`` from a block's queries and keys, (B, N, H, d) both; "cls_attention" may be received."""
        return cues_of(names, query, key, scale, cls_row if self.attention == "cls" else received)

    def cues_of_features(self, features: Tensor, needs: frozenset[str], asks: Asks) -> dict[str, Tensor]:
        """The needed cues of the reader's input (B, N, C) or (S, C), of as many tokens."""
        return {}
