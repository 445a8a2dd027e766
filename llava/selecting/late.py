"""Choosing in prompts: images and videos that stand in a batch of them, at a decoder layer or before all layers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from llava.selecting.choose import choose
from llava.selecting.options import PruningOptions
from llava.selecting.parts import Visual
from llava.selecting.record import PruneRecord


@dataclass(frozen=True)
class Placed:
    """An image or video and where it stands in a batch of prompts."""

    visual: Visual
    row: int  # its prompt, copies not counted
    columns: Tensor | slice  # (L,)


@dataclass(frozen=True)
class Decision:
    """What is kept of a batch of prompts, copies left out.

    Args:
        keep: (B, L) bool.
        merged: (B, L, D) what the language model reads instead of its embeddings; None for a pruner that merges none.
        record: of what is kept.
    """

    keep: Tensor
    merged: Tensor | None
    record: PruneRecord

    def grown(self, batch: int, length: int) -> "Decision":
        """The same for copies of each prompt, side by side, and for tokens behind the prompts, which are all kept."""
        copies, more = batch // len(self.keep), length - self.keep.shape[1]
        keep = pad(self.keep.repeat_interleave(copies, dim=0), (0, more), value=True)
        merged = None if self.merged is None else self.merged.repeat_interleave(copies, dim=0)
        return Decision(keep, None if merged is None else pad(merged, (0, 0, 0, more)), self.record)


@torch.no_grad()
def decide(
    options: PruningOptions,
    placed: Sequence[Placed],
    states: Tensor,
    real: Tensor,
    attention: Callable[[], Tensor] | None = None,
    copies: int = 1,
) -> Decision:
    """Choose among the visual tokens of a batch of prompts.

    Args:
        options: with a pruner.
        placed: images and videos of the batch, with the cues that their encoder and the prompt's text give.
        states: (B * copies, L, D) that the language model, or its layer ``prune_layer``, is given.
        real: (B * copies, L) bool, which columns are no padding.
        attention: gives a row of attention inside the language model for each prompt; None before it.
        copies: how often each prompt stands in the batch, side by side: beams are copies.
    """
    first, keep = states[::copies], real[::copies].clone()
    attended = attention()[::copies] if attention is not None and "text_attention" in options.chooser.needs else None
    visuals = []
    for each in placed:
        tokens = first[each.row, each.columns]
        known = {"features": tokens, **each.visual.cues, "embeds": tokens}  # of an encoder that has none of its own
        if attended is not None:
            known["text_attention"] = attended[each.row, each.columns]
        visuals.append(replace(each.visual, cues=known))
    choice = choose(options, visuals, [visual.cues["embeds"] for visual in visuals])
    merged = None if choice.merged is None else first.detach().clone()
    for index, (each, positions) in enumerate(zip(placed, choice.kept, strict=True)):
        kept = torch.zeros(each.visual.length, dtype=torch.bool, device=positions.device).index_fill(0, positions, True)
        keep[each.row, each.columns] = kept.to(keep.device)
        if merged is not None and choice.merged is not None:
            merged[each.row, each.columns] = choice.merged[index]
    return Decision(keep, merged, PruneRecord.of(visuals, choice.kept, budgets=choice.budgets))
