"""One row of a decoder layer's attention, whatever implementation the model runs with."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.models.llama.modeling_llama import rotate_half

from llava import compat


def sliding_window(config: PretrainedConfig, index: int) -> int | None:
    """How many tokens back layer ``index`` of a decoder looks, None for all."""
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and kinds[index] != "sliding_attention":
        return None
    return getattr(config, "sliding_window", None)


@torch.no_grad()  # a cue to choose by
def query_attention(
    body: nn.Module, index: int, inputs: dict[str, Any] | None, real: Tensor, query: Tensor | None = None
) -> Tensor:
    """Return the attention that one token of each row pays to all tokens of a prompt, mean over heads.

    Args:
        body: decoder with rotary positions, grouped heads or not, with or without norms of queries and keys.
        index: of the layer.
        inputs: what the layer was called with. Keys are taken from the cache where it has all of them.
        real: (B, L) bool, which tokens are no padding.
        query: (B,) the token of each row that attends; the last real one if not given.

    Returns:
        (B, L) float32, softmax in float32; zero for padding and for what lies after the query or out of its window.

    Raises:
        ValueError: ``index`` is negative: no layer precedes the first.
        RuntimeError: the layer is built otherwise.
    """
    if inputs is None or index < 0:
        raise ValueError("no layer comes before layer 0: prune at layer 1 or later to know what a token attends to")
    decoder: Any = body  # whose parts Transformers names alike in every family
    layer = decoder.layers[index]
    attention = _attention_of(layer)
    device = next(attention.q_proj.parameters()).device
    hidden_states, real = inputs["hidden_states"].to(device), real.to(device)
    columns = torch.arange(real.shape[1], device=device)
    query = (columns * real).argmax(dim=1) if query is None else query.to(device)
    rotary = [part.to(device).expand(len(real), -1, -1) for part in inputs["position_embeddings"]]  # (B, L, d) each
    at_query = query.view(-1, 1, 1)

    one = layer.input_layernorm(hidden_states.take_along_dim(at_query, dim=1))  # (B, 1, D)
    rotary_of_one = [part.take_along_dim(at_query, dim=1) for part in rotary]
    queries = _heads(one, attention.q_proj, getattr(attention, "q_norm", None), attention.head_dim, rotary_of_one)
    keys = _cached_keys(compat.cache_of(inputs), index, real.shape[1])
    if keys is None:
        every = layer.input_layernorm(hidden_states)
        keys = _heads(every, attention.k_proj, getattr(attention, "k_norm", None), attention.head_dim, rotary)

    seen = real & (columns <= query.unsqueeze(1))
    window = sliding_window(decoder.config, index)
    if window is not None:
        seen &= columns > query.unsqueeze(1) - window
    return _mean_over_heads(queries, keys.to(device), seen, attention.scaling)


def _attention_of(layer: nn.Module) -> Any:
    """The module that attends; RuntimeError for a layer that is built otherwise."""
    attention = getattr(layer, "self_attn", None)
    missing = [name for name in ("q_proj", "k_proj", "head_dim", "scaling") if not hasattr(attention, name)]
    if missing or not hasattr(layer, "input_layernorm"):
        found = ", ".join(missing) or "input_layernorm"
        raise compat.not_pruned(f"{type(layer).__name__} has no {found}, from which its attention is computed")
    return attention


def _mean_over_heads(queries: Tensor, keys: Tensor, seen: Tensor, scale: float) -> Tensor:
    """Attention of queries (B, heads, 1, d) to keys (B, groups, L, d) where ``seen`` (B, L), float32 (B, L)."""
    with torch.autocast(keys.device.type, enabled=False):
        queries = queries.float().unflatten(1, (keys.shape[1], -1)).squeeze(3)  # (B, groups, heads of a group, d)
        scores = queries @ keys.float().mT * scale  # (B, groups, heads of a group, L)
        return scores.masked_fill(~seen[:, None, None], -torch.inf).softmax(dim=-1).flatten(1, 2).mean(dim=1)


def _heads(tokens: Tensor, proj: nn.Module, norm: nn.Module | None, head_dim: int, rotary: list[Tensor]) -> Tensor:
    """Project tokens (B, L, D) and rotate them to their positions, (B, heads, L, d)."""
    heads = proj(tokens).unflatten(-1, (-1, head_dim))
    heads = (heads if norm is None else norm(heads)).transpose(1, 2)
    cos, sin = (part.unsqueeze(1) for part in rotary)
    return heads * cos + rotate_half(heads) * sin


def _cached_keys(cache: Any, index: int, length: int) -> Tensor | None:
    """The rotated keys of a layer, (B, heads, L, d), None where the cache does not have all of them as they are."""
    if cache is None:
        return None
    keys = getattr(cache.layers[index], "keys", None)
    return keys if keys is not None and keys.ndim == 4 and keys.shape[2] == length else None
