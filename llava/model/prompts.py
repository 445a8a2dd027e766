"""A batch of prompts laid out on the CPU, before anything waits on a device or for it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.model.splice import Span, VisualBatch, cut_rows, pad_rows, shift_positions, splice_row


@dataclass(frozen=True)
class Prompts:
    """The prompts of a batch, padding left out: ids and labels (L,) of each, on the CPU."""

    ids: list[Tensor]
    labels: list[Tensor]

    @classmethod
    def of(cls, input_ids: Tensor, mask: Tensor | None, labels: Tensor | None) -> "Prompts":
        """Leave out of a batch (B, L) what the mask excludes; without labels, there is nothing to learn."""
        real = torch.ones_like(input_ids, dtype=torch.bool) if mask is None else mask.bool()
        labels = torch.full_like(input_ids, IGNORE_INDEX) if labels is None else labels
        rows = zip(input_ids, labels, real, strict=True)
        ids, targets = zip(*[(row[keep], target[keep]) for row, target, keep in rows], strict=True)
        return cls(list(ids), list(targets))

    def lay_out(
        self, images: Sequence[Sequence[Span]], limit: int | None, padding_side: str, may_cut: bool = True
    ) -> "Layout":
        """Put the images of each prompt in their places, cut what is longer than ``limit``, and pad.

        Raises:
            PromptTooLong: a prompt is longer, and may not be cut.
        """
        words = [row[row != IMAGE_TOKEN_INDEX] for row in self.ids]
        total, first, rows = sum(map(len, words)), 0, []
        for row, targets, own, shown in zip(self.ids, self.labels, words, images, strict=True):
            rows.append(splice_row(row, targets, shown, total, first))
            first += len(own)
        rows, cut = cut_rows(rows, limit, may_cut)
        tokens = total + sum(image.count for shown in images for image in shown)
        sources, labels, positions, mask = pad_rows(rows, tokens, padding_side)
        return Layout(torch.cat(words), sources, labels, positions, mask, cut, padded=not bool(mask.all()))


@dataclass(frozen=True)
class Layout:
    """Where the tokens of a batch stand.

    Args:
        words: (W,) the ids of all tokens that are no image's.
        sources, labels, positions, mask: (B, L) as ``pad_rows`` returns them.
        cut: how many positions each prompt has lost at its end.
        padded: whether there is padding.
    """

    words: Tensor
    sources: Tensor
    labels: Tensor
    positions: Tensor
    mask: Tensor
    cut: list[int]
    padded: bool

    def to(self, device: torch.device) -> "Layout":
        """The same on another device, but for the words, which are looked up where they were given."""
        names = ("sources", "labels", "positions", "mask")
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in names})

    def numbered(self) -> Tensor:
        """Positions (B, L) without gaps, padding left out."""
        return (self.mask.cumsum(dim=1) - 1).where(self.mask, 0)

    def unpruned(self, visual: VisualBatch | None) -> Tensor:
        """Positions (B, L) as they are when nothing is pruned; ``visual`` is what is left of the images, if any."""
        if visual is None or visual.positions is None:
            return self.positions
        kept = visual.positions.to(self.positions.device)
        return shift_positions(self.positions, self.sources, len(self.words), kept)


def on_host(*values: Tensor | None) -> list[Tensor | None]:
    """Fetch what came with a call; it is waited for here, where a device has nothing to do yet."""
    return [value.cpu() if isinstance(value, Tensor) else value for value in values]


def needed(mask: Tensor | None, device: torch.device, cache: Any) -> Tensor | None:
    """Leave out a mask (B, L) on the host, beside a cache, that excludes nothing: on a device it would be waited for.

    Without a cache, a mask says besides that positions with gaps are those of one sequence.
    """
    on_host = mask is not None and mask.ndim == 2 and mask.device.type == "cpu" != device.type
    return None if on_host and cache is not None and bool(mask.all()) else mask
