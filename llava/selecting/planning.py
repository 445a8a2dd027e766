"""What is chosen from together, and where what is kept stands: known from sizes, before there is a cue."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from llava.pruners import Pruner, VisualCues
from llava.pruners.cues import CUES, TEXT_FORMS
from llava.selecting.options import PruningOptions
from llava.selecting.parts import Part, Visual, budget_of, parts_of

Row = tuple[int, Part]  # a visual, by its index, and the part of it that is chosen from


@dataclass(frozen=True, eq=False)
class Rows:
    """R rows of P tokens that are chosen from in one call.

    Args:
        pruner: with the budget of a row.
        names: of the cues that are read of these rows' tokens.
        texts: of those that are read of their questions.
        owners: whose they are.
        beside: further rows that are read, and not chosen from: tiles of the owners' images that keep other numbers, as
            pruners measure a tile by what all tiles of its image have.
        ids: (R, P) the tokens, counted through the sequences of all images; None for one row that holds 0 to P - 1.
        image_index: (R + rows beside,) as in ``VisualCues``; None for one row.
        fixed: (R, K) what a pruner keeps that reads no cue, else None.
        grid: rows and columns of the tokens of every row, None where that is not known.
    """

    pruner: Pruner
    names: tuple[str, ...]
    texts: tuple[str, ...]
    owners: Sequence[Row]
    ids: Tensor | None
    image_index: Tensor | None
    fixed: Tensor | None
    grid: tuple[int, int] | None = None
    beside: Sequence[Row] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """R and P."""
        return len(self.owners), len(self.owners[0][1].positions)

    def keep(self, cues: Mapping[str, Tensor]) -> Tensor:
        """Choose of each row by its cues, (R, P, ...) of tokens and (R, M, ...) of questions: (R, K) int64.

        Those of rows beside stand behind them.
        """
        return self.pruner(self.visual_cues(cues))[: len(self.owners)] if self.fixed is None else self.fixed

    def visual_cues(self, cues: Mapping[str, Tensor], own: bool = False) -> VisualCues:
        """The cues as pruners are given them; ``own`` leaves out rows beside."""
        index = self.image_index
        if own and self.beside:
            cues = {name: cue[: len(self.owners)] for name, cue in cues.items()}
            index = None if index is None else index[: len(self.owners)]
        return VisualCues(**{"features": None, "embeds": None, **cues}, image_index=index, grid=self.grid)

    def tokens(self, keep: Tensor) -> Tensor:
        """The ids of what is kept of each row, (R, K)."""
        return keep if self.ids is None else self.ids.gather(1, keep)

    def to(self, device: torch.device) -> "Rows":
        """The same with its tensors on another device."""
        return replace(self, **_moved(self, ("ids", "image_index", "fixed"), device))


@dataclass(frozen=True, eq=False)
class Plan:
    """How the tokens of a batch of images are chosen. The tokens of all are counted through, image after image.

    Args:
        groups: what is chosen from together.
        rest: (U,) ids of tokens that nobody chooses from, which are kept; None where there are none.
        starts: (K,) of each kept token, the id of its image's first; None where all are one image's.
        counts: how many tokens of each image are kept, K in all.
        ordered: whether the kept tokens of the groups, one after the other, are in order.
    """

    groups: Sequence[Rows]
    rest: Tensor | None
    starts: Tensor | None
    counts: Sequence[int]
    ordered: bool

    def kept(self, keeps: Iterable[Tensor]) -> Tensor:
        """The ids of all kept tokens in order, (K,), from what is kept of each group's rows."""
        ids = [rows.tokens(keep).flatten() for rows, keep in zip(self.groups, keeps, strict=True)]
        ids += [] if self.rest is None else [self.rest]
        together = ids[0] if len(ids) == 1 else torch.cat(ids)
        return together if self.ordered else together.sort().values

    def positions(self, ids: Tensor) -> Tensor:
        """Where kept tokens stand in the sequences of their images, (K,)."""
        return ids if self.starts is None else ids - self.starts

    def to(self, device: torch.device) -> "Plan":
        """The same with its tensors on another device."""
        groups = [rows.to(device) for rows in self.groups]
        return replace(self, groups=groups, **_moved(self, ("rest", "starts"), device))


def plan_of(options: PruningOptions, visuals: Sequence[Visual], budgets: Sequence[Sequence[int]] | None = None) -> Plan:
    """Plan the choice among the tokens of every image or video.

    Args:
        options: with a pruner.
        visuals: of a batch; of their cues, only the names are looked at.
        budgets: how many tokens are kept of each part of each of them; None is what the pruner says.
    """
    pruner = options.chooser
    rows = [
        (index, part) for index, each in enumerate(visuals) for part in parts_of(pruner, each, options.budget_scope)
    ]
    if budgets is None:
        kept = [budget_of(pruner, part) for _, part in rows]
    else:
        kept = [budget for parts in budgets for budget in parts]
    starts = torch.tensor([0, *(each.length for each in visuals)]).cumsum(0)
    alike = defaultdict(list)
    for row, budget in zip(rows, kept, strict=True):
        visual, part = visuals[row[0]], row[1]
        names = tuple(name for name in CUES if name in pruner.needs & visual.cues.keys())
        texts = tuple(name for name in TEXT_FORMS if name in pruner.needs & visual.texts.keys())
        alike[len(part.positions), budget, names, texts, part.grid].append(row)
    groups = [
        _rows(pruner.with_budget(key[1]), key[2:], group, starts, [] if budgets is None else _beside(key, alike))
        for key, group in alike.items()
    ]
    rest = torch.ones(int(starts[-1]), dtype=torch.bool)
    counts = [0] * len(visuals)
    for (_, budget, *_), group in alike.items():
        for index, part in group:
            rest[starts[index] + part.positions] = False
            counts[index] += budget
    rest = rest.nonzero().flatten()
    owners = torch.bucketize(rest, starts[1:], right=True)
    for index, count in enumerate(owners.bincount(minlength=len(visuals)).tolist()):
        counts[index] += count
    of_each = starts[:-1].repeat_interleave(torch.tensor(counts, dtype=torch.long))
    return Plan(
        groups,
        rest if len(rest) or not groups else None,
        of_each if len(visuals) > 1 else None,
        counts,
        ordered=len(groups) == 1 and not len(rest) and _ascending(groups[0].ids),
    )


def _beside(key: tuple, alike: Mapping[tuple, list[Row]]) -> list[Row]:
    """The rows like those of a key, but for their budget, that share an image with them."""
    images = {(index, part.group) for index, part in alike[key]}
    length, budget, *known = key
    others = [
        group for (size, own, *others), group in alike.items() if own != budget and [size, others] == [length, known]
    ]
    return [row for group in others for row in group if (row[0], row[1].group) in images]


def _rows(pruner: Pruner, known: tuple, group: list[Row], starts: Tensor, beside: list[Row]) -> Rows:
    every = [*group, *beside] if pruner.needs else group
    images = {key: number for number, key in enumerate(dict.fromkeys((index, part.group) for index, part in every))}
    image_index = torch.tensor([images[index, part.group] for index, part in every])
    ids = torch.stack([starts[index] + part.positions for index, part in group])
    names, texts, grid = known
    index = image_index if len(every) > 1 else None
    rows = Rows(pruner, names, texts, group, ids, index, None, grid, every[len(group) :])
    if not pruner.needs:  # zeros tell how many tokens there are
        rows = replace(rows, fixed=pruner(rows.visual_cues({"cls_attention": torch.zeros(ids.shape)})))
    return replace(rows, ids=None) if torch.equal(ids, torch.arange(ids.shape[1]).unsqueeze(0)) else rows


def _ascending(ids: Tensor | None) -> bool:
    """Whether each row ends before the next begins."""
    return ids is None or ids.shape[1] == 0 or bool((ids[:-1, -1] < ids[1:, 0]).all())


def _moved(holder: Rows | Plan, names: Sequence[str], device: torch.device) -> dict[str, Tensor | None]:
    values = {name: getattr(holder, name) for name in names}
    return {name: None if value is None else value.to(device, non_blocking=True) for name, value in values.items()}
