"""One image or video as a language model reads it, and the choice of its tokens."""

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from llava.pruners import Pruner, VisualCues
from llava.selecting.parts import budget_of_tiles, judges_newlines, resolve_scope

ENCODER_CUES = ("keys", "last_attention", "last_keys")
PROMPT_CUES = ("relevance", "dot_relevance", "text_attention")


@dataclass(frozen=True)
class Part:
    """A stretch of an image's tokens that is chosen from by itself: a tile, a frame, or a grid of tiles."""

    positions: Tensor  # (L',) in the image's sequence
    tiles: int = 1  # how many tiles' budgets it has
    group: int = 0  # parts of one image and group share min-max statistics


@dataclass(frozen=True)
class Visual:
    """One image or video: its L tokens in the order in which the language model reads them, and what is known of them.

    A token that stands for several patches has the mean of their cues.
    """

    length: int
    parts: list[Part]
    features: Tensor | None = None  # (L, C) None: the embeddings stand in
    cls_attention: Tensor | None = None  # (L,)
    keys: Tensor | None = None  # (L, d) of the block that the attention is from, mean over heads
    last_attention: Tensor | None = None  # (L,) of the last block, heads not split
    last_keys: Tensor | None = None  # (L, C)
    clip_patches: Tensor | None = None  # (L, C) CLIP's patches after its last layer norm
    newline: Tensor | None = None  # (L,) True where the learned newline token stands

    @property
    def tiles(self) -> int:
        """Number of tiles or frames."""
        return sum(part.tiles for part in self.parts)


@dataclass(frozen=True)
class Seen:
    """A visual with what is known once it stands in a prompt."""

    visual: Visual
    embeds: Tensor  # (L, D) as the language model reads it
    relevance: Tensor | None = None  # (L,)
    dot_relevance: Tensor | None = None  # (L,)
    text_attention: Tensor | None = None  # (L,)


def text_relevance(embeds: Tensor, text: Tensor) -> Tensor | None:
    """Cosine of every visual token to the mean of the prompt's other embeddings, (L, D), (L', D) -> (L,).

    None when there is no other embedding.
    """
    if not len(text):
        return None
    return normalize(embeds.float(), dim=1) @ normalize(text.float().mean(dim=0), dim=0)


def text_product(embeds: Tensor, text: Tensor) -> Tensor | None:
    """Dot product of every visual token with the mean of the prompt's other embeddings, (L, D), (L', D) -> (L,)."""
    return embeds.float() @ text.float().mean(dim=0) if len(text) else None


@torch.no_grad()
def choose(
    pruner: Pruner, seen: list[Seen], budget_scope: str | None = None
) -> tuple[list[Tensor], list[Tensor] | None]:
    """Choose the visual tokens of every image or video.

    Args:
        pruner: what chooses.
        seen: the images and videos of a batch.
        budget_scope: "tile" chooses within each tile or frame, "image" from a whole image or video with the sum of
            its tiles' budgets; None leaves it to the pruner.

    Returns:
        The kept positions of each, ascending, and with them newline tokens that the pruner did not choose from among;
        and, of a pruner that merges, the embeddings of each (L, D) with merged ones in the kept places, else None.
    """
    rows = [
        (index, part)
        for index, entry in enumerate(seen)
        for part in _parts(pruner, entry.visual, resolve_scope(pruner, budget_scope, entry.visual.tiles))
    ]
    alike = defaultdict(list)  # rows of one shape are chosen from in one call
    for row, (index, part) in enumerate(rows):
        known = tuple(getattr(seen[index], name) is not None for name in PROMPT_CUES)
        budget = budget_of_tiles(pruner, len(part.positions), part.tiles)
        alike[len(part.positions), budget, known].append(row)
    kept = [torch.ones(entry.visual.length, dtype=torch.bool) for entry in seen]
    merged = [entry.embeds.clone() for entry in seen] if pruner.merges else None
    for (_, budget, _), members in alike.items():
        group = [rows[row] for row in members]
        cues = _cues(seen, group)
        keep = pruner.with_budget(budget)(cues)
        for (index, part), picks in zip(group, keep.cpu(), strict=True):
            kept[index][part.positions] = False
            kept[index][part.positions[picks]] = True
        if merged is not None:
            tokens = pruner.apply(cues.embeds, keep, cues)
            for (index, part), picks, made in zip(group, keep.cpu(), tokens, strict=True):
                merged[index][part.positions[picks]] = made
    return [mask.nonzero().flatten() for mask in kept], merged


def _parts(pruner: Pruner, visual: Visual, scope: str) -> list[Part]:
    if scope == "tile":
        return visual.parts
    if judges_newlines(pruner):
        return [Part(torch.arange(visual.length), visual.tiles)]
    return [Part(torch.cat([part.positions for part in visual.parts]).sort().values, visual.tiles)]


def _cues(seen: list[Seen], rows: list[tuple[int, Part]]) -> VisualCues:
    """Stack the cues of rows of one length, (R, L', ...)."""
    device = seen[rows[0][0]].embeds.device

    def stack(values: list[Tensor | None]) -> Tensor | None:
        if any(value is None for value in values):
            return None
        return torch.stack([value[part.positions].to(device) for value, (_, part) in zip(values, rows, strict=True)])

    entries = [seen[index] for index, _ in rows]
    embeds = stack([entry.embeds for entry in entries])
    features = stack([entry.visual.features for entry in entries])
    images = {key: number for number, key in enumerate(dict.fromkeys((index, part.group) for index, part in rows))}
    return VisualCues(
        features=embeds if features is None else features,
        embeds=embeds,
        cls_attention=stack([entry.visual.cls_attention for entry in entries]),
        **{name: stack([getattr(entry.visual, name) for entry in entries]) for name in ENCODER_CUES},
        **{name: stack([getattr(entry, name) for entry in entries]) for name in PROMPT_CUES},
        image_index=torch.tensor([images[index, part.group] for index, part in rows], device=device),
    )
