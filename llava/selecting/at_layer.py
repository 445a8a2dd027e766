"""Dropping tokens between two decoder layers: the first K layers read a whole prompt, the others what is kept of it.

Forward pre-hooks on one body and on its layers do this; no class is touched, and ``remove`` leaves nothing behind. It
works on any of Transformers' decoders whose body has ``layers`` and hands its keyword arguments to them: Llama,
Mistral, Qwen2 and 3, and the text models of Qwen2-VL, Qwen2.5-VL and Qwen3-VL.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache

from llava import compat
from llava.pruners.checks import is_count
from llava.selecting.query_attention import query_attention, sliding_window

QueryAttention = Callable[..., Tensor]
Choose = Callable[[Tensor, QueryAttention], Tensor]

CHOOSE = "choose_tokens"
"""The keyword argument that brings a call of the body a ``choose`` of its own."""
CALL = "layer_pruning_call"
STATE = "layer_pruning"  # on a cache: what was kept of the sequences in it; copies of the cache take it along
OF_LAYERS = ("hidden_states", "position_embeddings", *compat.SHORTENED_BY)


@dataclass
class _Kept:
    """What the layers from K on have seen of the sequences in a cache."""

    valid: Tensor  # (B, M) which of the keys in those layers are no padding
    dropped: int  # keys that those layers have fewer than the others


@dataclass
class _Call:
    """What the layers share during one call of the body."""

    choose: Choose | None
    attention_mask: Tensor | None  # (B, L) as the body got it
    length: int | None = None  # L, of the ids or embeddings that the body got
    begun: bool = False  # whether layer K has run
    before: dict[str, Any] | None = None  # what layer K - 1 was given
    order: Tensor | None = None  # (B, M) which tokens the layers from K on see; None when they see all there are
    valid: Tensor | None = None  # (B, M') which of their keys are no padding; None when nothing was ever dropped
    masks: dict[int | None, Any] = field(default_factory=dict)  # by sliding window
    positions: tuple[Tensor | None, Any] | None = None  # ids and embeddings of the tokens in ``order``


class LayerPruning:
    """The hooks of ``prune_at_layer``; a context manager that removes them in the end."""

    def __init__(self, body: nn.Module, layer: int, choose: Choose | None = None):
        layers = getattr(body, "layers", None)
        if not isinstance(layers, nn.ModuleList):
            raise TypeError(f"{type(body).__name__} has no decoder layers: pass the body of a language model")
        if not is_count(layer) or layer >= len(layers):
            raise ValueError(f"the layer to prune at must be an integer from 0 to {len(layers) - 1}, not {layer!r}")
        self.body, self.layer, self.choose = body, int(layer), choose
        self._parameters = compat.parameters_of(body.forward)
        self._layers = layers
        self._of_layers = [compat.parameters_of(module.forward) for module in layers]
        self._handles = [body.register_forward_pre_hook(self._enter_body, with_kwargs=True)]
        for index, module in enumerate(layers):
            hook = partial(self._enter_layer, index)
            self._handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
        self._handles.append(body.register_forward_hook(self._leave_body, with_kwargs=True))

    def remove(self) -> None:
        """Take the hooks off. A cache that was filled with them is of no use without."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def __enter__(self) -> "LayerPruning":
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _enter_body(self, body: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        given = compat.named(self._parameters, args, kwargs)
        mask, cache = given.get("attention_mask"), compat.cache_of(given)
        read = next((given[name] for name in ("inputs_embeds", "input_ids") if given.get(name) is not None), None)
        call = _Call(given.pop(CHOOSE, self.choose), mask, None if read is None else read.shape[1])
        continued = self._state(cache) is not None
        if call.choose is None and not continued:
            return args, {**{name: value for name, value in kwargs.items() if name != CHOOSE}, CALL: call}
        compat.refuse_unknown(body.forward, type(body).__name__, compat.SHORTENED_BY)
        if not (mask is None or isinstance(mask, Tensor)):
            raise compat.not_pruned(f"{type(body).__name__} was given a {type(mask).__name__} as its mask")
        if mask is not None and mask.ndim != 2:
            raise ValueError(
                "pruning inside the language model needs a 2-D attention mask or none; masks made beforehand (a static "
                "cache brings them along) fit a prompt of which every layer sees the same"
            )
        if continued and self.layer == 0 and given.get("position_ids") is None:
            raise ValueError("a cache pruned at layer 0 does not know how far a sequence is: pass position_ids")
        return (), {**given, CALL: call}

    def _enter_layer(
        self, index: int, layer: nn.Module, args: tuple, kwargs: dict[str, Any]
    ) -> tuple[tuple, dict[str, Any]]:
        call: _Call | None = kwargs.get(CALL)
        rest = {name: value for name, value in kwargs.items() if name != CALL}
        given = compat.named(self._of_layers[index], args, rest)
        cache = compat.cache_of(given)
        if call is None:
            if self.choose is not None or self._state(cache) is not None:
                raise compat.not_pruned(f"{type(self.body).__name__} does not hand its keyword arguments to its layers")
            return args, rest  # nothing to prune that is known here: whose call it is holds what was read against it
        if index < self.layer:
            if index == self.layer - 1 and call.choose is not None:
                call.before = given
            return args, rest
        if not call.begun:
            self._begin(call, given, cache)
        if call.valid is None:
            return args, rest
        hidden_states = given.pop("hidden_states")
        if call.order is not None:
            if index == self.layer:
                hidden_states = _take(hidden_states, call.order)
            if call.positions is None:
                call.positions = _take_positions(given, call.order)
            given["position_ids"], given["position_embeddings"] = call.positions
        given["attention_mask"] = self._mask(call, index, hidden_states, cache)
        return (), {"hidden_states": hidden_states, **given}

    def _leave_body(self, body: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        """Hold what the layers from K on read, and what they cached, against what was chosen."""
        call: _Call | None = kwargs.get(CALL)
        if call is None or call.choose is None:
            return
        if not call.begun:
            raise compat.not_pruned(f"{type(body).__name__} did not call its layer {self.layer} as a module")
        if call.order is None:
            return
        read, due, cache = compat.positions_in(output), call.order.shape[1], compat.cache_of(kwargs)
        cached = due if cache is None else cache.get_seq_length(self.layer)
        if (read, cached) != (due, due):
            raise compat.not_pruned(
                f"the layers from {self.layer} on read {read} positions and cached {cached} where {due} were to be left"
            )

    def _state(self, cache: Cache | None) -> _Kept | None:
        """What is known of a cache; nothing of one that is empty, though it may have been used before."""
        if cache is None or cache.get_seq_length(self.layer) == 0:
            return None
        return getattr(cache, STATE, None)

    def _begin(self, call: _Call, given: dict[str, Any], cache: Cache | None) -> None:
        """Find out, at layer K, which tokens and which keys the layers from here on see."""
        call.begun = True
        kept = self._state(cache)
        if kept is not None and cache is not None:
            call.valid = self._continued(kept, call, given["hidden_states"], cache)
        elif call.choose is not None:
            self._check_layers(call, given)
            kept = self._prune(call, call.choose, given["hidden_states"], cache)
        call.before = None
        if call.valid is not None and kept is not None and cache is not None:
            setattr(cache, STATE, _Kept(call.valid, kept.dropped))
        elif cache is not None:
            vars(cache).pop(STATE, None)  # of an earlier prompt: the cache was emptied

    def _check_layers(self, call: _Call, given: dict[str, Any]) -> None:
        """Raise RuntimeError where layers do not take, or were not given, what a prompt is shortened through."""
        for layer in self._layers[max(0, self.layer - 1) :]:
            compat.refuse_unknown(layer.forward, type(layer).__name__, OF_LAYERS)
        owner = f"layer {self.layer} of {type(self.body).__name__}"
        missing = [name for name in ("hidden_states", "position_embeddings") if given.get(name) is None]
        if missing:
            raise compat.not_pruned(f"{owner} was given no {' and no '.join(missing)}")
        length = given["hidden_states"].shape[1]
        if call.length not in (None, length):
            raise compat.not_pruned(f"{owner} was given {length} positions of a prompt of {call.length}")

    def _prune(self, call: _Call, choose: Choose, hidden_states: Tensor, cache: Cache | None) -> _Kept:
        """Choose from a prompt."""
        if cache is not None and cache.is_compileable:
            raise ValueError("pruning inside the language model needs a dynamic cache: a static one has equal layers")
        if cache is not None and cache.get_seq_length(self.layer) > 0:
            raise ValueError(
                "the cache holds a beginning of the prompt that was not pruned: pruning inside the language model "
                "takes a prompt in one piece"
            )
        batch, length = hidden_states.shape[:2]
        mask = call.attention_mask
        real = torch.ones(batch, length, dtype=torch.bool) if mask is None else mask.bool()
        real = real.to(hidden_states.device)
        attend = partial(query_attention, self.body, self.layer - 1, call.before, real)
        keep = choose(hidden_states, attend)
        if keep.shape != real.shape or keep.dtype != torch.bool:
            raise ValueError(f"what to keep of {tuple(real.shape)} tokens came as {tuple(keep.shape)} {keep.dtype}")
        call.order, call.valid = pack(keep.to(real.device) & real, right=not bool(real[:, -1].all()))
        return _Kept(call.valid, length - call.order.shape[1])

    def _continued(self, kept: _Kept, call: _Call, hidden_states: Tensor, cache: Cache) -> Tensor:
        """Which keys the layers from K on see when tokens are added to a pruned prompt, (B, M')."""
        batch, added = hidden_states.shape[:2]
        length = cache.get_seq_length(self.layer)
        dropped = kept.dropped if self.layer == 0 else cache.get_seq_length(0) - added - length
        if len(kept.valid) != batch or kept.valid.shape[1] < length or dropped != kept.dropped:
            raise RuntimeError(
                "the cache of a pruned prompt was changed so that its layers no longer fit each other: pruning inside "
                "the language model cannot be combined with what did it (cutting it to a length, another batch)"
            )
        device, mask = hidden_states.device, call.attention_mask
        new = torch.ones(batch, added, dtype=torch.bool) if mask is None else mask[:, -added:].bool()
        return torch.cat([kept.valid[:, :length].to(device), new.to(device)], dim=1)

    def _mask(self, call: _Call, index: int, hidden_states: Tensor, cache: Cache | None) -> Any:
        """The mask of a layer over the tokens it sees, in the form that its attention implementation reads."""
        config: Any = self.body.config
        window = sliding_window(config, index)
        if window not in call.masks:
            call.masks[window] = compat.create_mask(
                window,
                cache,
                config=config,
                inputs_embeds=hidden_states,
                attention_mask=call.valid,
                layer_idx=index,
            )
        return call.masks[window]


def prune_at_layer(body: nn.Module, layer: int, choose: Choose | None = None) -> LayerPruning:
    """Let the layers of ``body`` from ``layer`` on see only a part of every prompt.

    The kept tokens have the positions they had. What is generated after the prompt is seen by all layers. What a cache
    has been pruned to is noted on the cache, so that sequences of several caches may take turns. Batches are ragged,
    padded on either side; gradients and beams pass; a static cache and a cache that was filled without pruning are
    errors. ``body`` returns the states of the kept tokens alone, (B, M, D): the rows packed and padded on the side on
    which the prompt is, so that the last column means what it did.

    Args:
        body: a decoder with ``layers``, called with keyword arguments, as Transformers does.
        layer: the first layer, counted from 0, that sees the shorter prompt.
        choose: called once for every prompt, ``choose(hidden_states, attention)``, with the states (B, L, D) that
            ``layer`` is given, to return which tokens it sees, (B, L) bool: at least one of each row; padding is
            dropped whatever it says. ``attention(query=None)`` returns the attention that one token of each row pays
            to every token in the layer before, (B, L) float32, mean over heads; ``query`` (B,) says which token, None
            means the last that is no padding. B counts beams: equal rows must be answered equally. Without a cache
            (``use_cache=False``) every step is a new prompt and ``choose`` is called again; of a prompt in pieces
            (chunked prefill) it is shown the first, which is for it to refuse. A call of the body may bring its own as
            the keyword argument ``choose_tokens``; where there is neither, nothing is pruned.

    Returns:
        The hooks, to ``remove()`` or to use as a context manager.

    Raises:
        TypeError, ValueError: ``body`` has no layers, or not so many. Later, in a call, ValueError for what is not
            supported, and RuntimeError when a pruned cache was tampered with.
    """
    return LayerPruning(body, layer, choose)


def pack(keep: Tensor, right: bool) -> tuple[Tensor, Tensor]:
    """Return the kept tokens of each row in their order, (B, M), and which of these are no padding, (B, M).

    Args:
        keep: (B, L) bool, at least one of each row, else a ValueError is raised.
        right: whether shorter rows are padded on the right.
    """
    counts = keep.sum(dim=1, keepdim=True)
    fewest, length = (int(count) for count in torch.stack([counts.min(), counts.max()]).tolist())
    if fewest == 0:
        raise ValueError("nothing was kept of a prompt: keep at least one token of each")
    order = keep.int().argsort(dim=1, stable=True, descending=right)
    columns = torch.arange(length, device=keep.device)
    if right:
        return order[:, :length], columns < counts
    return order[:, -length:], columns >= length - counts


def _take(tokens: Tensor, order: Tensor) -> Tensor:
    """Return the tokens of each row that ``order`` (B, M) names, (B or 1, L, D) -> (B, M, D)."""
    return tokens.take_along_dim(order.to(tokens.device).unsqueeze(2), dim=1)


def _take_positions(kwargs: dict[str, Any], order: Tensor) -> tuple[Tensor | None, Any]:
    """Return position ids, (B or 1, L) -> (B, M), and rotary embeddings of the tokens in ``order``."""
    ids = kwargs.get("position_ids")
    if ids is not None:
        ids = ids.expand(len(order), -1).gather(1, order.to(ids.device))
    return ids, tuple(_take(part, order) for part in kwargs["position_embeddings"])
