"""Choosing visual tokens inside the language model: the batch waits with all its tokens until a decoder layer asks."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from llava.constants import IGNORE_INDEX
from llava.selecting.at_layer import QueryAttention, pack
from llava.selecting.late import Decision, Placed, decide
from llava.selecting.options import PruningOptions
from llava.selecting.parts import Visual
from llava.selecting.record import PruneRecord


@dataclass
class LateSelection:
    """A batch of prompts with all visual tokens, to be pruned by ``prune_at_layer``, whose ``choose`` this is.

    Args:
        options: with a pruner and a layer.
        visuals: the images of the batch.
        note: is given the record of what was kept, once it is known.
        timed: makes the context in which tokens are chosen.
    """

    options: PruningOptions
    visuals: list[Visual]
    note: Callable[[PruneRecord], None]
    timed: Callable[[], AbstractContextManager[None]] = nullcontext
    real: Tensor | None = None  # (B, L) which columns of the prompts are no padding
    placed: list[Placed] = field(default_factory=list)
    asking: Tensor | None = None  # (B,) the column of the token whose attention is read
    decision: Decision | None = None
    cut: list[int] = field(default_factory=list)  # per prompt, positions lost to the length limit; for the record

    def place(self, spans: Sequence[Sequence[tuple[int, int]]], real: Tensor, labels: Tensor) -> None:
        """Tell where the images stand.

        Args:
            spans: for each row, first and last column + 1 of its images, padding not counted.
            real: (B, L) bool, which columns of the padded batch are no padding.
            labels: (B, L) ``IGNORE_INDEX`` in the prompt; behind it, an answer that is known already may stand.

        Raises:
            ValueError: the prompt was cut, so that part of an image is missing.
        """
        self.real, visuals = real, iter(self.visuals)
        lengths, starts = real.sum(dim=1).tolist(), real.int().argmax(dim=1).tolist()
        for row, (length, offset) in enumerate(zip(lengths, starts, strict=True)):
            for start, stop in spans[row]:
                if stop > length:
                    raise ValueError(
                        f"tokenizer_model_max_length cuts prompt {row} inside an image: with prune_layer of 1 or more "
                        "a prompt has to fit with all its visual tokens"
                    )
                self.placed.append(Placed(next(visuals), row, slice(offset + start, offset + stop)))
        self.asking = self._last_of_prompts(labels)

    def _last_of_prompts(self, labels: Tensor) -> Tensor:
        """The column of the last token of each row that is in front of an answer behind all images, (B,)."""
        columns = torch.arange(self.real.shape[1], device=self.real.device)
        answer = self.real & (labels != IGNORE_INDEX)
        for each in self.placed:
            answer[each.row, : each.columns.stop] = False
        return (columns * (self.real & (answer.cumsum(dim=1) == 0))).argmax(dim=1)

    def __call__(self, hidden_states: Tensor, attention: QueryAttention) -> Tensor:
        """Choose, or repeat what was chosen for a prompt that has grown; beams of a prompt stand side by side.

        Args:
            hidden_states: (B * beams, L or more, D)
            attention: as ``prune_at_layer`` hands it over; the last token of the prompt attends, not of a known answer.

        Returns:
            (B * beams, L or more) bool

        Raises:
            ValueError: for a piece of the prompts.
        """
        batch, length = hidden_states.shape[:2]
        rows, columns = self.real.shape
        if length < columns or batch % rows or (self.decision is None and length > columns):
            raise ValueError(
                f"prompts of {rows} x {columns} tokens came to the language model as {batch} x {length}: with "
                "prune_layer of 1 or more they have to come in one piece (no prefill_chunk_size)"
            )
        if self.decision is None:
            copies = batch // rows
            attended = partial(attention, self.asking.repeat_interleave(copies))
            real = self.real.to(hidden_states.device).repeat_interleave(copies, dim=0)
            with self.timed():
                self.decision = decide(self.options, self.placed, hidden_states, real, attended, copies)
            self.visuals, self.placed = [], []  # large, and not needed any more
            self.note(replace(self.decision.record, cut=self.cut))
        return self.decision.grown(batch, length).keep

    def shorten(self, labels: Tensor) -> Tensor:
        """Return the labels (B, L) of the tokens that all layers saw, (B, M), as the decoder returns their states."""
        order, valid = pack(self.decision.keep, right=not bool(self.real[:, -1].all()))
        order, valid = order.to(labels.device), valid.to(labels.device)
        return labels.gather(1, order).masked_fill(~valid, IGNORE_INDEX)
