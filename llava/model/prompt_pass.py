"""The pass over prompts, captured: what the language model makes of embeddings, with keys and values for a cache."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin
from transformers.modeling_outputs import CausalLMOutputWithPast

from llava import compat
from llava.model.decoding import SlotCache
from llava.model.replay import Replays

MOST_POSITIONS = 1024  # of more, a pass takes longer than its launches
GRAPHS = 4  # each holds the keys and values of its prompts
PLAIN = frozenset({"inputs_embeds", "position_ids", "use_cache", "logits_to_keep", "return_dict", *compat.CACHE_NAMES})
CALLS = 2  # of a form before it is captured; prompts differ in length, and most lengths do not come again


class PromptPass:
    """Replays passes over prompts (B, L, D) without padding, of the forms that came first."""

    def __init__(self, capture: Any = None):
        self._replays = Replays(*(() if capture is None else (capture,)), limit=GRAPHS, calls=CALLS, replaces=False)

    def __call__(self, model: nn.Module, given: Mapping[str, Any]) -> CausalLMOutputWithPast | None:
        """Return the logits of the last token of each prompt and fill the cache; None for what is not replayed.

        Args:
            model: of Llama's or Mistral's kind, with a head.
            given: what its forward is given, by name.
        """
        embeds, positions, cache = given["inputs_embeds"], given["position_ids"], compat.cache_of(given)
        if not _plain(model, given, cache) or embeds.shape[0] * embeds.shape[1] > MOST_POSITIONS:
            return None

        def read(embeds: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
            return pass_over(model, embeds, positions)

        key = ("prompts", model.lm_head.weight.data_ptr())
        found = self._replays.replayed(key, read, {"embeds": embeds, "positions": positions})
        if found is None:
            return None
        logits, states = found
        if isinstance(cache, SlotCache):
            cache.fill(states)
        else:
            for layer, (keys, values) in enumerate(states):
                cache.update(keys, values, layer)
        return CausalLMOutputWithPast(logits=logits, **compat.cache_argument(cache))


def _plain(model: nn.Module, given: Mapping[str, Any], cache: Any) -> bool:
    """Whether a call reads whole prompts without padding, beside an empty cache, and asks for nothing else."""
    whole = given["inputs_embeds"] is not None and given["position_ids"] is not None and given["input_ids"] is None
    others = {name for name, value in given.items() if value is not None} - PLAIN
    last = isinstance(given["logits_to_keep"], int) and given["logits_to_keep"] == 1
    empty = type(cache) in (DynamicCache, SlotCache) and cache.get_seq_length() == 0
    attention = model.config._attn_implementation == "sdpa" and getattr(model.config, "sliding_window", None) is None
    answering = not torch.is_grad_enabled() and not model.training and given["use_cache"] is not False
    return whole and not others and last and empty and attention and answering


class PromptLayer(CacheLayerMixin):
    """Keys and values of prompts that a layer has just read, in memory as a growing cache has them."""

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        self.lazy_initialization(key_states, value_states)
        self.keys, self.values = key_states.contiguous(), value_states.contiguous()
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, 0

    def get_seq_length(self) -> int:
        return self.keys.shape[2] if self.is_initialized else 0

    def get_max_length(self) -> int:
        return -1


def pass_over(model: nn.Module, embeds: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Read prompts layer by layer, as the language model does where nothing is masked but what comes later.

    Transformers makes a mask of all pairs while a graph is captured, under which another kernel computes attention.

    Returns:
        Logits (B, 1, V) of the last tokens, and keys and values (layers, 2, B, H, L, d).
    """
    body, hidden = model.get_model(), embeds
    cache = Cache(layers=[PromptLayer() for _ in body.layers])
    given = {"attention_mask": None, "position_ids": positions, "use_cache": True, **compat.cache_argument(cache)}
    given["position_embeddings"] = body.rotary_emb(hidden, position_ids=positions)
    for layer in body.layers:
        hidden = layer(hidden, **given)
    states = torch.stack([torch.stack([layer.keys, layer.values]) for layer in cache.layers])
    return model.lm_head(body.norm(hidden)[:, -1:]), states
