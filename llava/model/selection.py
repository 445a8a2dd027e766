"""Which visual tokens of a batch of images are kept: the step between encoding and splicing.

A pruner chooses within the rows it is given. This module lays out those rows (one per tile, or one per image), asks
the pruner once for all rows of one shape, and turns its answers into positions of each image's merged sequence.
"""

from collections import defaultdict
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from llava.model.tiles import NEWLINE
from llava.pruners import Pruner, VisualCues
from llava.pruners.base import CLIP_TEXT_CUES, CUES
from llava.selecting.parts import budget_of_tiles, judges_newlines, resolve_scope
from llava.selecting.record import PruneRecord


@dataclass(frozen=True)
class Row:
    """One row of candidates for the pruner: part of one image, with its own budget and statistics."""

    image: int
    part: int  # rows of one image with the same part share min-max statistics
    positions: Tensor  # (L,) in the image's merged sequence
    budget: int


@dataclass(frozen=True)
class ImageLayout:
    """The merged sequence of one image before pruning, and where its tiles lie in the batch."""

    order: Tensor  # (L,) flat patch ids within the image, NEWLINE for the newline token
    tiles: int
    first_tile: int
    newlines: bool = False  # whether rows end with a newline token, as in LLaVA-NeXT's native layout

    @property
    def split(self) -> bool:
        """Whether base tile and unpadded grid are selected from apart."""
        return self.newlines and self.tiles > 1

    @property
    def patches(self) -> Tensor:
        """Positions of the merged sequence that hold a patch."""
        return (self.order != NEWLINE).nonzero().flatten()


def selection_rows(layout: ImageLayout, image: int, patches_per_tile: int, pruner: Pruner, scope: str) -> list[Row]:
    """Split one image into the rows of candidates that ``pruner`` chooses from, each with its budget."""
    budget = partial(budget_of_tiles, pruner)
    everything = torch.arange(len(layout.order))
    if scope == "image":
        positions = everything if judges_newlines(pruner) else layout.patches
        return [Row(image, 0, positions, budget(len(positions), layout.tiles))]
    if layout.split:
        base, grid = layout.patches[:patches_per_tile], layout.patches[patches_per_tile:]
        return [Row(image, 0, base, budget(len(base), 1)), Row(image, 1, grid, budget(len(grid), layout.tiles - 1))]
    of_patch = layout.order[layout.patches].argsort()
    return [Row(image, 0, tile, budget(len(tile), 1)) for tile in of_patch.view(layout.tiles, patches_per_tile)]


@torch.no_grad()  # which tokens are kept is a decision, not a differentiable step
def select(
    pruner: Pruner,
    cues: VisualCues,
    layouts: list[ImageLayout],
    has_text: list[bool],
    newline: Tensor | None = None,
    budget_scope: str | None = None,
    states: list[dict[str, Tensor]] | None = None,
) -> tuple[list[Tensor], list[Tensor | list[Tensor]], Tensor | None]:
    """Choose the visual tokens of every image.

    Args:
        pruner: what chooses.
        cues: of all tiles of the batch, image after image.
        layouts: one per image.
        has_text: per image, whether its relevance means anything.
        newline: (D,) embedding of the newline token, where the layout has one.
        budget_scope: "tile", "image" or None for the pruner's own.
        states: per image, cues of every token of its merged sequence, (L, ...) by name, known inside the language
            model: they take the place of those of the tiles.

    Returns:
        The kept positions of each image's merged sequence, ascending, the ``keep`` entry of its record, and, if the
        pruner merges tokens, the features (B, N, C) with the merged ones in the places of the kept ones, else None.
    """
    scopes = [resolve_scope(pruner, budget_scope, layout.tiles) for layout in layouts]
    rows = [
        row
        for image, (layout, scope) in enumerate(zip(layouts, scopes, strict=True))
        for row in selection_rows(layout, image, cues.shape[1], pruner, scope)
    ]
    chosen, merged = _choose(pruner, cues, rows, layouts, has_text, newline, states)
    picks: list[list[tuple[Row, Tensor]]] = [[] for _ in layouts]
    for row, keep in zip(rows, chosen, strict=True):
        picks[row.image].append((row, keep))
    kept = [_kept_positions(layout, pick) for layout, pick in zip(layouts, picks, strict=True)]
    return kept, [_keep_entry(*entry) for entry in zip(layouts, picks, kept, scopes, strict=True)], merged


def _choose(
    pruner: Pruner,
    cues: VisualCues,
    rows: list[Row],
    layouts: list[ImageLayout],
    has_text: list[bool],
    newline: Tensor | None,
    states: list[dict[str, Tensor]] | None,
) -> tuple[list[Tensor], Tensor | None]:
    """Return what is kept of every row, and the features with merged ones in the kept places if the pruner merges."""
    alike = defaultdict(list)  # rows of one shape are chosen from in one call
    for index, row in enumerate(rows):
        alike[len(row.positions), row.budget, has_text[row.image]].append(index)
    newline = newline if judges_newlines(pruner) else None
    chosen: dict[int, Tensor] = {}
    merged = cues.features.clone() if pruner.merges else None
    for (_, budget, text), indices in alike.items():
        group = [rows[index] for index in indices]
        row_cues = _gather_cues(cues, group, layouts, newline, text, states)
        keep = pruner.with_budget(budget)(row_cues)
        chosen |= zip(indices, keep, strict=True)
        if merged is not None:
            places = _flat_ids(group, layouts, cues.shape[1]).to(keep.device).gather(1, keep)
            merged.flatten(0, 1)[places] = pruner.apply(row_cues.features, keep, row_cues)
    return [chosen[index] for index in range(len(rows))], merged


def record_of(layouts: list[ImageLayout], kept: list[Tensor], keep: list[Tensor | list[Tensor]] | None) -> PruneRecord:
    """Count what was kept, from positions of each image's merged sequence and the ``keep`` entries of the record."""
    newlines = [layout.order[positions.cpu()] == NEWLINE for layout, positions in zip(layouts, kept, strict=True)]
    return PruneRecord(
        keep=keep,
        visual_tokens=[len(positions) for positions in kept],
        newline_tokens=[int(tokens.sum()) for tokens in newlines],
        tokens_before=[len(layout.order) for layout in layouts],
    )


def gather_kept(embeds: Tensor, layout: ImageLayout, positions: Tensor, newline: Tensor | None) -> Tensor:
    """Return the embeddings at ``positions`` of an image's merged sequence, (K, D), from those of all tiles."""
    tiles = embeds[layout.first_tile : layout.first_tile + layout.tiles].flatten(0, 1)  # (tiles * N, D)
    ids = layout.order.to(positions.device)[positions].to(embeds.device)
    if torch.equal(layout.order, torch.arange(len(tiles))):
        return tiles[ids] if len(ids) < len(tiles) else tiles
    sequence = tiles[ids.clamp_min(0)]
    return sequence if newline is None else torch.where((ids == NEWLINE).unsqueeze(-1), newline.to(sequence), sequence)


def _flat_ids(rows: list[Row], layouts: list[ImageLayout], patches: int) -> Tensor:
    """Return where the tokens of ``rows`` lie among those of all tiles, (R, L); negative for a newline token."""
    ids = torch.stack([layouts[row.image].order[row.positions] for row in rows])  # (R, L)
    first = torch.tensor([layouts[row.image].first_tile * patches for row in rows]).unsqueeze(1)
    return torch.where(ids == NEWLINE, NEWLINE, ids + first)


def _gather_cues(
    cues: VisualCues,
    rows: list[Row],
    layouts: list[ImageLayout],
    newline: Tensor | None,
    text: bool,
    states: list[dict[str, Tensor]] | None = None,
) -> VisualCues:
    """Return the cues of ``rows``, (R, L, ...); rows that are the batch's tiles as they stand cost no copy."""
    tiles, patches = cues.shape
    ids = _flat_ids(rows, layouts, patches)  # (R, L)
    as_they_stand = torch.equal(ids, torch.arange(tiles * patches).view(tiles, patches))
    newlines, ids = (ids == NEWLINE).to(cues.device), ids.clamp_min(0).to(cues.device)

    def take(cue: Tensor | None) -> Tensor | None:
        return cue if cue is None or as_they_stand else cue.flatten(0, 1)[ids]

    taken = {name: take(getattr(cues, name)) for name in CUES if text or name not in CLIP_TEXT_CUES}
    if newline is not None and not as_they_stand:
        taken["embeds"] = torch.where(newlines.unsqueeze(-1), newline.to(taken["embeds"]), taken["embeds"])
    for name in states[0] if states else ():
        of_rows = [states[row.image][name].to(cues.device)[row.positions.to(cues.device)] for row in rows]
        taken[name] = torch.stack(of_rows)
    images = {key: index for index, key in enumerate(dict.fromkeys((row.image, row.part) for row in rows))}
    image_index = torch.tensor([images[row.image, row.part] for row in rows], device=cues.device)
    return VisualCues(**taken, image_index=image_index)


def _kept_positions(layout: ImageLayout, picks: list[tuple[Row, Tensor]]) -> Tensor:
    """Return the kept positions of one merged sequence: what was chosen, and the newlines nobody chose from."""
    device = picks[0][1].device
    chosen = [row.positions.to(device)[keep] for row, keep in picks]
    candidates = torch.cat([row.positions for row, _ in picks])
    untouched = torch.ones(len(layout.order), dtype=torch.bool).index_fill(0, candidates, False)
    return torch.cat([*chosen, untouched.nonzero().flatten().to(device)]).sort().values


def _keep_entry(
    layout: ImageLayout, picks: list[tuple[Row, Tensor]], kept: Tensor, scope: str
) -> Tensor | list[Tensor]:
    if scope == "image":
        return kept
    keeps = [keep for _, keep in picks]
    return keeps if layout.split else torch.stack(keeps)
