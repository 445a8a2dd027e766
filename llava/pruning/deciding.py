"""What is kept of a batch of prompts: asked of the pruner once, and remembered for calls that read them again."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from llava.pruners import Pruner
from llava.pruning.prompts import Prompts, in_prompt
from llava.selecting.at_layer import QueryAttention
from llava.selecting.choose import Visual, choose
from llava.selecting.record import PruneRecord
from llava.selecting.relevance import ClipRelevance


@dataclass(frozen=True)
class Settings:
    """How a model is pruned; see ``prune``."""

    pruner: Pruner
    clip: ClipRelevance | None
    compact: bool
    budget_scope: str | None
    prune_layer: int


@dataclass(frozen=True)
class Decision:
    """What was decided of a batch of prompts, for calls that read it again."""

    ids: Tensor  # (B, L)
    encoded: Mapping[str, list[Visual]]
    keep: Tensor  # (B, L)
    merged: Tensor | None  # (B, L, D) the embeddings of a pruner that merges


@torch.no_grad()
def decided(
    settings: Settings, prompts: Prompts, embeds: Tensor, texts: list[str] | None, attention: QueryAttention | None
) -> tuple[Decision, PruneRecord]:
    """Choose among the visual tokens of a batch of prompts.

    Args:
        settings: of the model.
        prompts: the batch, and the images and videos in it.
        embeds: (B, L, D) that the language model, or its layer ``prune_layer``, is given.
        texts: the question of each prompt where CLIP weighs relevance, else None.
        attention: gives a row of attention inside the language model; None before it.

    Returns:
        The decision, and the record of what it keeps.
    """
    needs, clip = settings.pruner.needs, settings.clip
    attended = attention() if attention is not None and "text_attention" in needs else None
    seen = [
        in_prompt(prompts, placed, embeds[placed.row], needs, clip, texts and texts[placed.row // prompts.copies])
        for placed in prompts.placed
    ]
    if attended is not None:
        seen = [
            replace(entry, text_attention=attended[placed.row, placed.columns])
            for entry, placed in zip(seen, prompts.placed, strict=True)
        ]
    kept, tokens = choose(settings.pruner, seen, settings.budget_scope)
    chosen = torch.zeros_like(prompts.visual)
    merged = None if tokens is None else embeds.detach().clone()
    for index, (placed, positions) in enumerate(zip(prompts.placed, kept, strict=True)):
        copies = slice(placed.row, placed.row + prompts.copies)
        chosen[copies, placed.columns[positions.to(placed.columns.device)]] = True
        if merged is not None:
            merged[copies, placed.columns] = tokens[index]
    keep = prompts.real & (~prompts.visual | chosen)
    record = record_of([placed.visual for placed in prompts.placed], kept)
    return Decision(prompts.ids, prompts.encoded, keep, merged), record


def record_of(visuals: list[Visual], kept: list[Tensor]) -> PruneRecord:
    """The record of what was kept of images and videos: per one, its kept positions (K,)."""
    newlines = [
        0 if visual.newline is None else int(visual.newline.cpu()[positions].sum())
        for visual, positions in zip(visuals, kept, strict=True)
    ]
    before = [visual.length for visual in visuals]
    return PruneRecord(kept, [len(positions) for positions in kept], newlines, before)
