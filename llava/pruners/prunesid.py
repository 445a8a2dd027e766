"""PruneSID: semantic groups and what repeats within them (ICLR 2026), https://arxiv.org/abs/2603.09480."""

from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from llava.pruners.base import Pruner
from llava.pruners.cues import VisualCues
from llava.pruners.functional import finite, rank

SMALLEST = 1e-12  # share of the largest eigenvalue up to which one is rounding


@dataclass(frozen=True)
class PruneSID(Pruner):
    """Keep the least repetitive tokens of every semantic group, the groups with more to say being kept more of.

    The groups are the largest principal components of the tokens: each token belongs to the one that it has most of.
    In a group the token that [CLS] attends to most is listed and those too similar to it are passed over, again and
    again; behind them the list has what was passed over. Every group gives one token, and of the rest in proportion to
    how many were not passed over.

    The components are exact, where the release draws a random start for an approximation. All of the budget are
    patches; the release counts [CLS] as one of them. The groups are searched on the CPU, tile after tile: on a GPU the
    selection waits for it.
    """

    needs = frozenset({"features", "cls_attention"})
    paper = "https://arxiv.org/abs/2603.09480"
    source = "https://github.com/ZhengyaoFang/PruneSID"
    licence = "Apache-2.0"

    def select(self, cues: VisualCues, budget: int) -> Tensor:
        features = cues.features.cpu().double()
        order = rank(cues.cls_attention).cpu()
        kept = [_of_tile(finite(tile), attended, budget) for tile, attended in zip(features, order, strict=True)]
        return torch.stack(kept).to(cues.features.device)


def _of_tile(features: Tensor, by_attention: Tensor, budget: int) -> Tensor:
    """What is kept of one tile, (N, C) float64 and the order of attention (N,) -> (budget,)."""
    count = max(1, budget // 4)
    group = _groups(features, count)[by_attention]  # from here on all is in the order of attention
    unit = features[by_attention]
    unit = unit / unit.norm(dim=1, keepdim=True).clamp_min(1e-12)
    cosine = unit @ unit.T
    passed_over = _passed_over(cosine > _threshold(cosine, budget), group)
    members = group.bincount(minlength=count)
    picked = group[~passed_over].bincount(minlength=count)
    quotas = _quotas(members.tolist(), picked.tolist(), budget)
    lists = [torch.cat([places[~passed_over[places]], places[passed_over[places]]]) for places in _places(group, count)]
    return by_attention[torch.cat([places[:quota] for places, quota in zip(lists, quotas, strict=True)])]


def _groups(features: Tensor, count: int) -> Tensor:
    """The principal component that each token has most of, (N, C) -> (N,).

    The right singular vectors of the matrix with a column for each token are the eigenvectors of their products, or are
    made from those of the products of its rows, of which there may be fewer: a fraction of the time. A component that
    no token has any of is no group.
    """
    centred = features.sigmoid()
    centred = centred - centred.mean(dim=1, keepdim=True)
    fewer_rows = centred.shape[1] < centred.shape[0]
    values, vectors = torch.linalg.eigh(centred.T @ centred if fewer_rows else centred @ centred.T)  # the largest last
    count = min(count, len(values))
    values, vectors = values[-count:].flip(0), vectors[:, -count:].flip(1)
    if fewer_rows:
        vectors = centred @ vectors / values.clamp_min(torch.finfo(values.dtype).tiny).sqrt()  # (N, count)
    return (vectors.abs() * (values > SMALLEST * values[0])).argmax(dim=1)


def _threshold(cosine: Tensor, budget: int) -> float:
    """The similarity above which a token repeats another: the mean of all pairs, more of it the more are kept."""
    pairs = len(cosine) * (len(cosine) - 1) / 2
    return budget / 32 * cosine.triu(1).sum().item() / pairs


def _passed_over(similar: Tensor, group: Tensor) -> Tensor:
    """Which tokens, by attention, are too similar to one of their group that is not, (N, N), (N,) -> (N,)."""
    similar = (similar & (group.unsqueeze(1) == group)).numpy()
    passed_over = torch.zeros(len(group), dtype=torch.bool)
    hidden = passed_over.numpy()
    for place in range(len(hidden)):
        if not hidden[place]:
            hidden[place + 1 :] |= similar[place, place + 1 :]
    return passed_over


def _places(group: Tensor, count: int) -> list[Tensor]:
    """Where the tokens of each group stand."""
    return [(group == number).nonzero().flatten() for number in range(count)]


def _quotas(members: list[int], picked: list[int], budget: int) -> list[int]:
    """How many tokens each group gives, ``budget`` in all.

    Args:
        members: tokens of each group.
        picked: how many of them were not passed over.
        budget: of the tile.
    """
    least = [min(1, size) for size in members]
    most = [min(5 * ceil(budget / 64), size, each) for size, each in zip(members, picked, strict=True)]
    while sum(most) < budget:
        most = [min(each + 1, size) for each, size in zip(most, members, strict=True)]
    rest = budget - sum(least)
    upto = (torch.tensor([0, *picked], dtype=torch.float64) / sum(picked)).cumsum(0) * rest
    shares = upto.round().diff().long().tolist()  # halves go to even numbers
    quotas = [min(one + share, top) for one, share, top in zip(least, shares, most, strict=True)]
    for number in sorted(range(len(picked)), key=lambda number: -picked[number]):
        quotas[number] += min(most[number] - quotas[number], budget - sum(quotas))
    return quotas
