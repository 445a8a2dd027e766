"""What pruners read of single blocks of CLIP: rows of attention and keys, never a whole attention map."""

import torch
from torch import Tensor, nn

QUERY_ROWS = 8
"""Products of few rows round by their number: with eight where one would do, an image's attention is the same however
many images are beside it."""


def cls_attention(block: nn.Module, hidden_states: Tensor) -> Tensor:
    """Recompute one row of a block's attention: [CLS] to every patch, mean over heads.

    Equal to ``output_attentions`` of eager attention, without any other row and under any attention backend. The
    softmax runs over all 1 + N keys; [CLS]'s own column is dropped, not renormalised.

    Args:
        block: a CLIP encoder layer.
        hidden_states: (B, 1 + N, C), the block's input.

    Returns:
        float32 (B, N)
    """
    attention = block.self_attn
    hidden_states = block.layer_norm1(hidden_states)
    split = (*hidden_states.shape[:1], -1, attention.num_heads, attention.head_dim)
    # Eight rows for the query, and a sum where a product would do, which would round by the number of images, too.
    query = attention.q_proj(hidden_states[:, :QUERY_ROWS]).view(split)[:, :1]  # (B, 1, H, C / H)
    key = attention.k_proj(hidden_states).view(split)  # (B, 1 + N, H, C / H)
    logits = (query * key).sum(dim=-1) * attention.scale  # (B, 1 + N, H)
    return logits.softmax(dim=1, dtype=torch.float32)[:, 1:].mean(dim=-1)


def mean_keys(block: nn.Module, hidden_states: Tensor) -> Tensor:
    """The keys of a block's patches, mean over heads.

    Args:
        block: a CLIP encoder layer of H heads.
        hidden_states: (B, 1 + N, C), the block's input.

    Returns:
        float32 (B, N, C / H)
    """
    attention = block.self_attn
    keys = attention.k_proj(block.layer_norm1(hidden_states))[:, 1:].float()  # (B, N, C)
    return keys.unflatten(-1, (attention.num_heads, attention.head_dim)).mean(dim=2)


def unsplit_attention(block: nn.Module, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
    """A block's [CLS] attention and keys as if it had one head of the whole width.

    Args:
        block: a CLIP encoder layer.
        hidden_states: (B, 1 + N, C), the block's input.

    Returns:
        float32 (B, N), softmax over all 1 + N keys, [CLS]'s own column dropped; and the keys (B, N, C).
    """
    attention = block.self_attn
    hidden_states = block.layer_norm1(hidden_states)
    query = attention.q_proj(hidden_states[:, :QUERY_ROWS])[:, :1]  # (B, 1, C)
    key = attention.k_proj(hidden_states)  # (B, 1 + N, C)
    logits = (query.float() * key.float()).sum(dim=-1) * key.shape[-1] ** -0.5  # (B, 1 + N)
    return logits.softmax(dim=1)[:, 1:], key[:, 1:]
