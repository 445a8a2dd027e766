"""Prompts without their dropped tokens: tensors in, tensors out, nothing of any model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llava.selecting.at_layer import pack


@dataclass(frozen=True)
class Shortened:
    """A padded batch of prompts from which tokens are gone: what is left stands at the right, padding at the left.

    Args:
        order: (B, M) the column that each token has in the unpruned batch.
        valid: (B, M) False where a column is padding.
        length: L, the columns of the unpruned batch.
        dropped: (B, 1) tokens that each row lost.
        real: (B, L) the unpruned batch's attention mask.
    """

    order: Tensor
    valid: Tensor
    length: int
    dropped: Tensor
    real: Tensor

    @classmethod
    def of(cls, keep: Tensor, real: Tensor) -> "Shortened":
        """Shorten to the tokens in ``keep`` (B, L); ``real`` (B, L) is False where a column is padding."""
        order, valid = pack(keep, right=False)
        dropped = (real.int() - keep.int()).sum(dim=1, keepdim=True)
        return cls(order, valid, keep.shape[1], dropped, real)

    @property
    def width(self) -> int:
        """M, the columns that are left."""
        return self.order.shape[1]

    def take(self, values: Tensor) -> Tensor:
        """Gather (B, L, D) embeddings to (B, M, D), padding set to zero."""
        taken = values.take_along_dim(self.order.unsqueeze(2).to(values.device), dim=1)
        return taken.masked_fill(~self.valid.unsqueeze(2).to(taken.device), 0.0) if not self.valid.all() else taken

    def arguments(self, given: Mapping[str, Any], compact: bool) -> dict[str, Tensor]:
        """Return the embeddings, the mask and the position ids that a language model is given instead of ``given``."""
        embeds = given["inputs_embeds"]
        mask = self.mask(self.width).to(embeds.device)
        positions = self.positions(given.get("position_ids"), compact)
        return {"inputs_embeds": self.take(embeds), "attention_mask": mask, "position_ids": positions}

    def positions(self, given: Tensor | None, compact: bool) -> Tensor:
        """Return the position ids of what is left, the last dimension M instead of L.

        Args:
            given: (B, L); several planes of it, (3, B, L) or (4, B, L), for m-rope; None counts the columns.
            compact: number what is left without gaps; False leaves each token the position that it had.
        """
        counted = (self.valid.cumsum(dim=1) - 1).clamp_min(0)  # (B, M)
        if compact:
            return counted
        if given is None:
            return self.order
        taken = given.gather(-1, self.order.expand(*given.shape[:-1], -1))
        if given.ndim == 3 and given.shape[0] == 4:  # the first plane only tells packed sequences apart
            taken = torch.cat([counted.unsqueeze(0), taken[1:]])
        return taken

    def next_positions(self, given: Tensor | None, new: int, past: int, compact: bool) -> Tensor:
        """Return the position ids of ``new`` tokens behind ``past`` that are cached, from those of an unpruned run."""
        if given is None:
            after = self.length + past - self.width + torch.arange(new, device=self.order.device)
            real = self.valid.sum(dim=1, keepdim=True) + self.dropped
            given = after.expand(len(self.order), new) if not compact else after - self.length + real
        given = given[..., -new:]  # a mask of the whole prompt makes Qwen count that
        return given - self.dropped.to(given.device) if compact else given

    def mask(self, length: int) -> Tensor:
        """Return the attention mask of this prompt and what follows it, (B, length) int64."""
        return _extended(self.valid, length)

    def unpruned_mask(self, length: int) -> Tensor:
        """Return the attention mask that the unpruned prompt and what follows it would have, (B, length) int64."""
        return _extended(self.real, length)


def _extended(mask: Tensor, length: int) -> Tensor:
    return torch.cat([mask, mask.new_ones(len(mask), length - mask.shape[1])], dim=1).long()
