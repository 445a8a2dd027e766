"""Choices in groups of tokens that are alike, of one tile, on the CPU."""

import torch
from torch import Tensor

SMALLEST = 1e-12  # share of the largest eigenvalue up to which one is rounding


def components(features: Tensor, count: int) -> Tensor:
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


def repeats(similar: Tensor, group: Tensor) -> Tensor:
    """Which tokens, by attention, are too similar to one of their group that is not, (N, N), (N,) -> (N,)."""
    alike = (similar & (group.unsqueeze(1) == group)).numpy()
    passed_over = torch.zeros(len(group), dtype=torch.bool)
    hidden = passed_over.numpy()
    for place in range(len(hidden)):
        if not hidden[place]:
            hidden[place + 1 :] |= alike[place, place + 1 :]
    return passed_over


def of_groups(group: Tensor, repeated: Tensor, quotas: list[int]) -> Tensor:
    """Of each group as many tokens as its quota, first those that repeat none: where they stand, (sum of quotas,).

    Args:
        group: (N,) int64 of tokens, the best first.
        repeated: (N,) bool, as ``repeats`` has it.
        quotas: of each group.
    """
    found = []
    for number, quota in enumerate(quotas):
        places = (group == number).nonzero().flatten()
        found.append(torch.cat([places[~repeated[places]], places[repeated[places]]])[:quota])
    return torch.cat(found)


def group_quotas(members: list[int], picked: list[int], most: list[int], budget: int) -> list[int]:
    """How many tokens each group gives, ``budget`` in all: one, and of the rest in proportion to ``picked``.

    Args:
        members: tokens of each group, at least ``budget`` in all.
        picked: how many of them repeat none of their group.
        most: what each gives at most; raised one by one where it is too little.
        budget: of the tile.
    """
    least = [min(1, size) for size in members]
    while sum(most) < budget:
        most = [min(each + 1, size) for each, size in zip(most, members, strict=True)]
    rest = budget - sum(least)
    upto = (torch.tensor([0, *picked], dtype=torch.float64) / sum(picked)).cumsum(0) * rest
    shares = upto.round().diff().long().tolist()  # halves go to even numbers
    quotas = [min(one + share, top) for one, share, top in zip(least, shares, most, strict=True)]
    for number in sorted(range(len(picked)), key=lambda number: -picked[number]):
        quotas[number] += min(most[number] - quotas[number], budget - sum(quotas))
    return quotas
