"""Which tokens of images and videos are kept: the one way from cues to positions, for every kind of model."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from llava.selecting.budgets import Budget, budgets_of
from llava.selecting.options import PruningOptions
from llava.selecting.parts import Visual
from llava.selecting.planning import Rows, plan_of


@dataclass(frozen=True)
class Choice:
    """What is kept of each image or video.

    Args:
        kept: (K,) positions of each, ascending; newline tokens that nobody chose from are among them.
        merged: of a pruner that merges, the tokens (L, D) of each with merged ones in the kept places, else None.
        budgets: of each, where they depend on what it shows, else None.
    """

    kept: list[Tensor]
    merged: list[Tensor] | None = None
    budgets: list[Budget] | None = None


@torch.no_grad()  # which tokens are kept is a decision, not a differentiable step
def choose(options: PruningOptions, visuals: Sequence[Visual], tokens: Sequence[Tensor] | None = None) -> Choice:
    """Choose among the tokens of every image or video.

    Nothing is read back from the device of their cues, unless it is budgets that follow the picture, once for all.

    Args:
        options: with a pruner.
        visuals: of a batch.
        tokens: (L, D) of each, which a pruner that merges makes sums of; others do not read them.
    """
    if not visuals:
        return Choice([])
    budgets = budgets_of(options, visuals) if options.varies else None
    plan = plan_of(options, visuals, None if budgets is None else [budget.parts for budget in budgets])
    known = visuals[0].cues
    lead = known["embeds"] if "embeds" in known else next(iter(known.values()), torch.empty(0))
    plan = plan.to(lead.device)
    cues = [_stacked(visuals, rows, lead.device) for rows in plan.groups]
    keeps = [rows.keep(own) for rows, own in zip(plan.groups, cues, strict=True)]
    kept = plan.positions(plan.kept(keeps)).split(plan.counts)
    if not options.chooser.merges:
        return Choice(list(kept), budgets=budgets)
    if tokens is None:
        raise ValueError("a pruner that merges needs the tokens that it makes sums of")
    merged = [each.clone() for each in tokens]
    for rows, own, keep in zip(plan.groups, cues, keeps, strict=True):
        candidates = _rows([part.of(tokens[index]) for index, part in rows.owners])
        positions = torch.stack([part.positions for _, part in rows.owners]).to(keep.device).gather(1, keep)
        made = rows.pruner.apply(candidates, keep, rows.visual_cues(own, own=True))
        for (index, _), places, values in zip(rows.owners, positions, made, strict=True):
            merged[index][places] = values
    return Choice(list(kept), merged, budgets)


def _stacked(visuals: Sequence[Visual], rows: Rows, device: torch.device) -> dict[str, Tensor]:
    """The cues of rows of one length: of their tokens (R, P, ...), of their questions (R, M, ...).

    Those of rows beside stand behind them.
    """
    every = [*rows.owners, *rows.beside]
    cues = {
        name: _rows([part.of(visuals[index].cues[name]).to(device) for index, part in every]) for name in rows.names
    }
    texts = {
        name: pad_sequence([visuals[index].texts[name].to(device) for index, _ in every], batch_first=True)
        for name in rows.texts
    }
    return cues | texts


def _rows(values: list[Tensor]) -> Tensor:
    """Stack rows; one alone is a view."""
    return values[0].unsqueeze(0) if len(values) == 1 else torch.stack(values)
