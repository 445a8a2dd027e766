"""Which tokens of images and videos are kept: the one way from cues to positions, for every kind of model."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llava.pruners import VisualCues
from llava.pruners.base import CUES
from llava.selecting.options import PruningOptions
from llava.selecting.parts import Part, Visual, budget_of, parts_of

Row = tuple[int, Part]  # a visual, by its index, and the part of it that is chosen from


@dataclass(frozen=True)
class Choice:
    """What is kept of each image or video.

    Args:
        kept: (K,) positions of each, ascending; newline tokens that nobody chose from are among them.
        merged: of a pruner that merges, the tokens (L, D) of each with merged ones in the kept places, else None.
    """

    kept: list[Tensor]
    merged: list[Tensor] | None = None


@torch.no_grad()  # which tokens are kept is a decision, not a differentiable step
def choose(options: PruningOptions, visuals: Sequence[Visual], tokens: Sequence[Tensor] | None = None) -> Choice:
    """Choose among the tokens of every image or video; nothing is read back from the device of their cues.

    Args:
        options: with a pruner.
        visuals: of a batch.
        tokens: (L, D) of each, which a pruner that merges makes sums of; others do not read them.
    """
    pruner = options.pruner
    rows = [
        (index, part) for index, each in enumerate(visuals) for part in parts_of(pruner, each, options.budget_scope)
    ]
    alike = defaultdict(list)  # rows of one shape are chosen from in one call
    for row in rows:
        names = tuple(name for name in CUES if name in pruner.needs & visuals[row[0]].cues.keys())
        alike[len(row[1].positions), budget_of(pruner, row[1]), names].append(row)
    chosen: list[list[Tensor]] = [[] for _ in visuals]
    merged = [each.clone() for each in tokens] if pruner.merges else None
    for (_, budget, names), group in alike.items():
        cues = _stacked(visuals, group, names)
        keep = pruner.with_budget(budget)(cues)  # (R, K)
        positions = torch.stack([part.positions for _, part in group]).to(keep.device).gather(1, keep)
        for (index, _), places in zip(group, positions, strict=True):
            chosen[index].append(places)
        if merged is not None:
            candidates = _rows([part.of(tokens[index]) for index, part in group])
            for (index, _), places, made in zip(group, positions, pruner.apply(candidates, keep, cues), strict=True):
                merged[index][places] = made
    parts = [[part for index, part in rows if index == each] for each in range(len(visuals))]
    return Choice([_kept(*entry) for entry in zip(visuals, parts, chosen, strict=True)], merged)


def _stacked(visuals: Sequence[Visual], group: list[Row], names: tuple[str, ...]) -> VisualCues:
    """The cues of rows of one length, (R, P, ...); a pruner that reads none learns from zeros how many there are."""
    known = visuals[group[0][0]].cues
    lead = known["embeds"] if "embeds" in known else next(iter(known.values()), torch.empty(0))
    images = {key: number for number, key in enumerate(dict.fromkeys((index, part.group) for index, part in group))}
    image_index = torch.tensor([images[index, part.group] for index, part in group], device=lead.device)
    cues = {
        name: _rows([part.of(visuals[index].cues[name]).to(lead.device) for index, part in group]) for name in names
    }
    if not cues:
        cues["cls_attention"] = torch.zeros(len(group), len(group[0][1].positions), device=lead.device)
    return VisualCues(**{"features": None, "embeds": None, **cues}, image_index=image_index)


def _rows(values: list[Tensor]) -> Tensor:
    """Stack rows; one alone is a view."""
    return values[0].unsqueeze(0) if len(values) == 1 else torch.stack(values)


def _kept(visual: Visual, parts: list[Part], chosen: list[Tensor]) -> Tensor:
    """The kept positions of one image: what was chosen, and the newline tokens that nobody chose from."""
    candidates = torch.cat([part.positions for part in parts])
    untouched = torch.ones(visual.length, dtype=torch.bool).index_fill(0, candidates, False).nonzero().flatten()
    return torch.cat([*chosen, untouched.to(chosen[0].device)]).sort().values
