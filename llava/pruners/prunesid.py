"""PruneSID: semantic groups and what repeats within them (ICLR 2026), https://arxiv.org/abs/2603.09480."""

from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from llava.pruners import search
from llava.pruners.base import Pruner
from llava.pruners.cues import VisualCues
from llava.pruners.functional import finite, rank


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
        given = cues.need("features")
        features = given.cpu().double()
        order = rank(cues.need("cls_attention")).cpu()
        kept = [_of_tile(finite(tile), attended, budget) for tile, attended in zip(features, order, strict=True)]
        return torch.stack(kept).to(given.device)


def _of_tile(features: Tensor, by_attention: Tensor, budget: int) -> Tensor:
    """What is kept of one tile, (N, C) float64 and the order of attention (N,) -> (budget,)."""
    count = max(1, budget // 4)
    group = search.components(features, count)[by_attention]  # from here on all is in the order of attention
    unit = features[by_attention]
    unit = unit / unit.norm(dim=1, keepdim=True).clamp_min(1e-12)
    cosine = unit @ unit.T
    passed_over = search.repeats(cosine > _threshold(cosine, budget), group)
    members = group.bincount(minlength=count).tolist()
    picked = group[~passed_over].bincount(minlength=count).tolist()
    most = [min(5 * ceil(budget / 64), size, each) for size, each in zip(members, picked, strict=True)]
    return by_attention[search.of_groups(group, passed_over, search.group_quotas(members, picked, most, budget))]


def _threshold(cosine: Tensor, budget: int) -> float:
    """The similarity above which a token repeats another: the mean of all pairs, more of it the more are kept."""
    pairs = len(cosine) * (len(cosine) - 1) / 2
    return budget / 32 * cosine.triu(1).sum().item() / pairs
