"""Decoding one token at a time from keys and values that stay where they are, so that a step can be replayed."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin
from transformers.modeling_outputs import CausalLMOutputWithPast

from llava import compat
from llava.model.replay import Graph

logger = logging.getLogger(__name__)

KNOWN = frozenset(
    "max_new_tokens min_new_tokens do_sample temperature top_p top_k num_beams use_cache repetition_penalty streamer "
    "no_repeat_ngram_size eos_token_id pad_token_id bos_token_id stopping_criteria logits_processor".split()
)
"""What ``generate`` may be called with for its steps to be replayed."""
LONGER_BY = 64  # caches are made in such steps of length, so that later prompts find theirs
LARGEST_BATCH = 16  # of larger ones a step takes longer than its launches
KEPT, KEPT_BYTES = 2, 4 * 2**30  # of caches that nobody uses and that are kept, with their graphs; one is, of any size


class Slot:
    """Keys and values of a batch, and a step that reads one token: buffers that stay, and the graph of the step.

    Args:
        batch, capacity: B, and how many positions there is room for.
        layers: of the decoder.
        capture: whether the step is captured; else it runs as it is.
    """

    def __init__(self, batch: int, capacity: int, layers: int, capture: bool):
        self.batch, self.capacity, self.layers, self.capture = batch, capacity, layers, capture
        self.states: Tensor | None = None  # (layers, 2, B, H, capacity, d)
        self.length = 0  # positions that are filled, padding included; 0 before the prompts are in
        self._inputs: dict[str, Tensor] = {}
        self._graph: Graph | None = None
        self._steps = 0

    def begin(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Take the prompts' keys and values (B, H, L, d) of a layer."""
        if layer == 0:
            self._empty(keys)
        for own, given in zip(self.states[layer], (keys, values), strict=True):
            own[:, :, : self.length].copy_(given)

    def fill(self, states: Tensor) -> None:
        """Take the prompts' keys and values (layers, 2, B, H, L, d) of all layers."""
        self._empty(states[0, 0])
        self.states[..., : self.length, :].copy_(states)

    def _empty(self, keys: Tensor) -> None:
        """Make room for keys (B, H, L, d); what is masked is multiplied by zero, and must be finite."""
        self.length = keys.shape[2]
        if self.states is None:
            shape = (self.layers, 2, *keys.shape[:2], self.capacity, keys.shape[3])
            with torch.inference_mode(False):  # it outlives this call
                self.states = torch.zeros(shape, dtype=keys.dtype, device=keys.device)
        else:
            self.states.zero_()

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put one token's keys and values (B, H, 1, d) to the others, and return all of the layer."""
        for own, given in zip(self.states[layer], (keys, values), strict=True):
            own.index_copy_(2, self._inputs["cursor"], given)
        return self.states[layer, 0], self.states[layer, 1]

    def step(
        self, forward: Callable[..., Any], cache: Cache, ids: Tensor, positions: Tensor, mask: Tensor | None
    ) -> Tensor:
        """Read one token of each row and return logits (B, 1, V).

        Args:
            forward: of the language model with its head.
            cache: the ``SlotCache`` of this slot.
            ids, positions: (B, 1)
            mask: (B, L) which of the positions so far, this one included, are no padding; None if all are.
        """
        if not self._inputs:
            with torch.inference_mode(False):
                self._inputs = {"ids": ids.clone(), "positions": positions.clone()}
                self._inputs["cursor"] = torch.zeros(1, dtype=torch.long, device=ids.device)
                shape = (self.batch, 1, 1, self.capacity)
                self._inputs["mask"] = torch.zeros(shape, dtype=torch.bool, device=ids.device)
        own, end = self._inputs, self.length + 1
        own["ids"].copy_(ids)
        own["positions"].copy_(positions)
        own["cursor"].fill_(end - 1)
        if self._steps == 0:
            own["mask"].zero_()
            own["mask"][:, 0, 0, :end] = True if mask is None else mask.bool()
        else:
            own["mask"][:, 0, 0, end - 1] = True
        self._steps += 1
        self.length = end
        return self._replayed(lambda **inputs: (_logits(forward, cache, **inputs),))

    def _replayed(self, run: Callable[..., tuple[Tensor]]) -> Tensor:
        if self._graph is None and self.capture and self._steps > 1:  # the first step has loaded what a step calls
            try:
                self._graph = Graph(run, self._inputs, copied=False)
            except Exception as error:
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                logger.warning("decoding is not captured in a CUDA graph, so it runs launch by launch: %s", reason)
                self.capture = False
        if self._graph is not None:
            return self._graph({})[0]
        return run(**self._inputs)[0]

    def nbytes(self) -> int:
        """The memory of keys and values."""
        return 0 if self.states is None else self.states.nbytes

    def reset(self) -> None:
        """Make room for other prompts."""
        self.length = self._steps = 0


def _logits(forward: Callable[..., Any], cache: Cache, ids: Tensor, positions: Tensor, mask: Tensor, cursor: Tensor):
    return forward(
        input_ids=ids, position_ids=positions, attention_mask=mask, use_cache=True, **compat.cache_argument(cache)
    ).logits


class SlotLayer(CacheLayerMixin):
    """What a layer of the decoder has of a slot: prompts are read as without one, later tokens from its buffers."""

    is_compileable = is_sliding = False

    def __init__(self, slot: Slot, index: int):
        super().__init__()
        self.slot, self.index, self.prompt = slot, index, 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if self.prompt:
            return self.slot.append(self.index, key_states, value_states)
        self.lazy_initialization(key_states, value_states)
        self.slot.begin(self.index, key_states, value_states)
        self.prompt = key_states.shape[2]
        return key_states, value_states

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return (self.slot.capacity if self.prompt else query_length), 0

    def get_seq_length(self) -> int:
        return self.slot.length if self.prompt else 0

    def get_max_length(self) -> int:
        return self.slot.capacity


class SlotCache(Cache):
    """The cache of one ``generate`` whose steps are replayed."""

    def __init__(self, slot: Slot):
        super().__init__(layers=[SlotLayer(slot, index) for index in range(slot.layers)])
        self.slot = slot

    def fill(self, states: Tensor) -> None:
        """Take the prompts' keys and values (layers, 2, B, H, L, d) of all layers."""
        self.slot.fill(states)
        for layer in self.layers:
            layer.prompt, layer.is_initialized = self.slot.length, True

    def step(
        self, forward: Callable[..., Any], ids: Tensor, positions: Tensor, mask: Tensor | None
    ) -> CausalLMOutputWithPast:
        """Read one token of each row; as ``Slot.step``."""
        logits = self.slot.step(forward, self, ids, positions, mask)
        return CausalLMOutputWithPast(logits=logits, **compat.cache_argument(self))


class Decoder:
    """Lends caches to calls of ``generate``, each to one at a time. Safe to use from several threads."""

    def __init__(self, capture: bool = True):
        self.capture = capture
        self._free: list[Slot] = []
        self._lock = threading.Lock()

    def cache(self, config: Any, embeds: Tensor, options: Mapping[str, Any]) -> SlotCache | None:
        """A cache for prompts (B, L, D), None where steps are not replayed.

        Args:
            config: of the language model.
            options: what ``generate`` is called with.
        """
        given = {name for name, value in options.items() if value is not None}
        new = options.get("max_new_tokens") or 0
        plain = given <= KNOWN and options.get("num_beams") in (None, 1) and options.get("use_cache") in (None, True)
        attention = config._attn_implementation == "sdpa" and getattr(config, "sliding_window", None) is None
        batch, length = embeds.shape[:2]
        if not plain or not attention or new < 2 or batch > LARGEST_BATCH:
            return None
        capacity = -(-(length + new) // LONGER_BY) * LONGER_BY
        return SlotCache(self._lent(batch, capacity, config.num_hidden_layers))

    def _lent(self, batch: int, capacity: int, layers: int) -> Slot:
        with self._lock:
            for slot in self._free:
                if (slot.batch, slot.capacity) == (batch, capacity):
                    self._free.remove(slot)
                    return slot
        return Slot(batch, capacity, layers, self.capture)

    def give_back(self, cache: SlotCache) -> None:
        """Take a cache back whose call has ended."""
        cache.slot.reset()
        with self._lock:
            self._free.append(cache.slot)
            while len(self._free) > KEPT or (len(self._free) > 1 and sum(map(Slot.nbytes, self._free)) > KEPT_BYTES):
                del self._free[0]

    def __deepcopy__(self, memo: dict[int, object]) -> "Decoder":
        return type(self)(self.capture)

    def __reduce__(self) -> tuple:
        return type(self), (self.capture,)


@contextmanager
def lent(decoder: Decoder | None, config: Any, embeds: Tensor, options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Lend a call of ``generate`` its cache, as ``Decoder.cache``: a keyword argument, or none."""
    cache = None if decoder is None else decoder.cache(config, embeds, options)
    try:
        yield {} if cache is None else compat.cache_argument(cache)
    finally:
        if cache is not None:
            decoder.give_back(cache)
