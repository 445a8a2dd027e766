"""What pruners read of single blocks of a vision encoder: attention as one number per token, never a map, and keys."""

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.clip.modeling_clip import eager_attention_forward

SELECTED_BLOCK_CUES = frozenset({"cls_attention", "keys"})
LAST_BLOCK_CUES = frozenset({"last_attention", "last_keys"})
RECEIVED_CUES = frozenset({"object_attention", "deep_attention"})
"""What every token receives of all: in a block that the pruner names, and in the selected one."""
OBJECT_LAYER = 9  # of the 24 blocks of CLIP-L/14, counted from 1: where HiPrune finds objects
LOGITS_PER_CHUNK = 2**24  # bounds the memory of ``received``, whatever the number of tokens


def queries_and_keys(block: Any, hidden_states: Tensor, rows: int | None = None) -> tuple[Tensor, Tensor, float]:
    """Recompute queries and keys of a block of CLIP's or SigLIP's from its input (B, N, C), under any implementation.

    Returns:
        The queries of the first ``rows`` tokens, or of all, (B, rows, H, d); the keys (B, N, H, d); and the scale of
        their product.
    """
    attention = block.self_attn
    hidden_states = block.layer_norm1(hidden_states)
    heads = (-1, attention.head_dim)
    query = attention.q_proj(hidden_states[:, :rows]).unflatten(-1, heads)
    return query, attention.k_proj(hidden_states).unflatten(-1, heads), attention.scale


def run_block(block: Any, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor, float]:
    """Run a block of CLIP's vision side step by step, so that its queries and keys are computed once.

    Bits and attention implementation are those of calling the block.

    Returns:
        What the block returns (B, N, C), and queries, keys and scale as ``queries_and_keys`` has them.
    """
    attention = block.self_attn
    inputs, heads = block.layer_norm1(hidden_states), (-1, attention.head_dim)
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    query, key, value = (projection(inputs).unflatten(-1, heads) for projection in projections)  # (B, N, H, d)
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(attention.config._attn_implementation, eager_attention_forward)
    by_head = (part.transpose(1, 2) for part in (query, key, value))
    attended, _ = attend(attention, *by_head, None, scaling=attention.scale, dropout=0.0)
    hidden_states = hidden_states + attention.out_proj(attended.flatten(2))
    return hidden_states + block.mlp(block.layer_norm2(hidden_states)), query, key, attention.scale


def cues_of(
    names: Collection[str], query: Tensor, key: Tensor, scale: float, row: Callable[..., Tensor]
) -> dict[str, Tensor]:
    """Return the cues in ``names`` from a block's queries and keys, (B, N, H, d) both, as ``VisualCues`` has them.

    They are of every token, [CLS] among them if there is one. ``row`` is ``cls_row`` or ``received``.
    """
    cues = {}
    if found := RECEIVED_CUES & set(names):
        cues |= dict.fromkeys(found, received(query, key, scale))
    if "cls_attention" in names:
        cues["cls_attention"] = row(query, key, scale)
    if "keys" in names:
        cues["keys"] = key.float().mean(dim=2)
    if "last_attention" in names:
        one_head = (part.float().flatten(2).unsqueeze(2) for part in (query, key))
        cues["last_attention"] = row(*one_head, query[0, 0].numel() ** -0.5)
    if "last_keys" in names:
        cues["last_keys"] = key.flatten(2)
    return cues


def cls_row(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """Attention of the first token, [CLS], to every token, mean over heads: (B, N, H, d) twice -> float32 (B, N).

    Equal to the row of eager attention. A sum where a product would do, which would round by the number of images.
    """
    logits = (query[:, :1] * key).sum(dim=-1, dtype=torch.float32) * scale  # (B, N, H)
    if logits.shape[2] == 1:  # (B, N) takes another kernel, which rounds otherwise
        return logits.squeeze(2).softmax(dim=1)
    return logits.softmax(dim=1).mean(dim=-1)


def received(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """Attention that every token receives, mean over queries and heads: (B, N, H, d) twice -> float32 (B, N).

    Tiles, and queries of large ones, are taken a chunk at a time: no N x N map is kept. Every tile is computed alike,
    whatever stands beside it.
    """
    batch, tokens, heads, _ = query.shape
    row = heads * tokens  # numbers of one query's attention
    tiles = max(1, LOGITS_PER_CHUNK // (row * tokens))
    if batch > tiles:
        chunks = zip(query.split(tiles), key.split(tiles), strict=True)
        return torch.cat([received(*chunk, scale) for chunk in chunks])
    keys = key.permute(0, 2, 3, 1)  # (B, H, d, N)
    total = torch.zeros(batch, tokens, device=query.device)
    for chunk in query.split(max(1, min(tokens, LOGITS_PER_CHUNK // row)), dim=1):
        logits = (chunk.transpose(1, 2) @ keys) * scale  # (B, H, chunk, N)
        total += logits.softmax(dim=-1, dtype=torch.float32).sum(dim=(1, 2))
    return total / row
