"""Attention of a vision encoder's block as one number per token, without the maps that it comes from."""

import torch
from torch import Tensor

LOGITS_PER_CHUNK = 2**24  # bounds the memory of ``received``, whatever the number of tokens


def cls_row(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """Attention of the first token, [CLS], to every token, mean over heads: (B, N, H, d) twice -> float32 (B, N)."""
    logits = (query[:, :1] * key).sum(dim=-1) * scale  # (B, N, H)
    return logits.softmax(dim=1, dtype=torch.float32).mean(dim=-1)


def received(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """Attention that every token receives, mean over queries and heads: (B, N, H, d) twice -> float32 (B, N).

    Queries are taken a chunk at a time: no N x N map is made.
    """
    batch, tokens, heads, _ = query.shape
    keys = key.permute(0, 2, 3, 1)  # (B, H, d, N)
    total = torch.zeros(batch, tokens, device=query.device)
    for chunk in query.split(max(1, LOGITS_PER_CHUNK // (batch * heads * tokens)), dim=1):
        logits = (chunk.transpose(1, 2) @ keys) * scale  # (B, H, chunk, N)
        total += logits.softmax(dim=-1, dtype=torch.float32).sum(dim=(1, 2))
    return total / (heads * tokens)
