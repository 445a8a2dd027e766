"""PruneSID: semantic groups, what repeats within them, and how many tokens each gives."""

import math

import numpy as np
import pytest
import torch

from llava.pruners import VisualCues
from llava.pruners.prunesid import PruneSID

from .search.test_groups import shares_of


def cues(features, attention):
    return VisualCues(features=features, embeds=None, cls_attention=attention)


def groups_of(features, count):
    """The singular vector that each token has most of, by the singular values themselves."""
    rows = torch.sigmoid(features.double())
    rows = rows - rows.mean(dim=1, keepdim=True)
    return torch.linalg.svd(rows.T, full_matrices=False).Vh[:count].abs().argmax(dim=0).tolist()


def lists_of(features, attention, group, budget):
    """Of every group its tokens, those that repeat none before them first; and how many these are."""
    unit = features.double() / features.double().norm(dim=1, keepdim=True)
    cosine = (unit @ unit.T).numpy()
    tokens = range(len(group))
    threshold = budget / 32 * np.mean([cosine[i, j] for i in tokens for j in tokens if i < j])
    lists, picked = [], []
    for number in range(max(1, budget // 4)):
        left = sorted((n for n in tokens if group[n] == number), key=lambda n: -attention[n])
        picks, passed = [], []
        while left:
            first, *others = left
            picks.append(first)
            passed += [n for n in others if cosine[first, n] > threshold]
            left = [n for n in others if cosine[first, n] <= threshold]
        lists.append(picks + sorted(passed, key=lambda n: -attention[n]))
        picked.append(len(picks))
    return lists, picked


def quotas_of(members, picked, budget):
    """How many each group gives."""
    most = [min(5 * math.ceil(budget / 64), size, each) for size, each in zip(members, picked, strict=True)]
    return shares_of(members, picked, most, budget)


def clustered(seed, tokens=60, width=24, centres=8):
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(centres, width, generator=generator)[torch.randint(centres, (tokens,), generator=generator)]
    noise, attention = torch.randn(tokens, width, generator=generator), torch.rand(tokens, generator=generator)
    return 2 * centre + 0.5 * noise, attention.softmax(dim=0)


@pytest.mark.parametrize("budget", [1, 3, 4, 9, 20, 45, 59])
@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_plain_rule(seed, budget):
    features, attention = clustered(seed)
    group = groups_of(features, max(1, budget // 4))
    lists, picked = lists_of(features, attention, group, budget)
    shares = quotas_of([len(each) for each in lists], picked, budget)
    expected = sorted(sum((each[:share] for each, share in zip(lists, shares, strict=True)), []))
    assert PruneSID(budget)(cues(features.unsqueeze(0), attention.unsqueeze(0))).tolist() == [expected]


def test_of_copies_the_most_attended_is_kept():
    features = 4 * torch.eye(6, 24).repeat(5, 1)  # tokens n, n + 6, n + 12, ... are copies; all are of one group
    attention = torch.rand(30, generator=torch.Generator().manual_seed(3)).softmax(dim=0)
    best = attention.view(5, 6).argmax(dim=0) * 6 + torch.arange(6)
    keep = PruneSID(6)(cues(features.unsqueeze(0), attention.unsqueeze(0)))
    assert torch.equal(keep, best.sort().values.unsqueeze(0))


def test_components_that_no_token_has_any_of_make_no_groups():
    features, attention = clustered(4, tokens=80, width=6)  # of rank 5: an eighth of the components
    for budget in (40, 79):
        group = groups_of(features, 5)
        lists, picked = lists_of(features, attention, group, budget)
        shares = quotas_of([len(each) for each in lists], picked, budget)
        expected = sorted(sum((each[:share] for each, share in zip(lists, shares, strict=True)), []))
        assert PruneSID(budget)(cues(features.unsqueeze(0), attention.unsqueeze(0))).tolist() == [expected]


def test_attention_of_zero_keeps_a_token_in_its_place():
    features, attention = clustered(1)
    silent = attention.clone()
    silent[10:] = 0
    keep = PruneSID(40)(cues(features.unsqueeze(0), silent.unsqueeze(0)))
    assert keep.shape == (1, 40)


def test_the_choice_is_the_same_each_time():
    features, attention = clustered(2, tokens=100)
    first = PruneSID(25)(cues(features.unsqueeze(0), attention.unsqueeze(0)))
    assert all(torch.equal(PruneSID(25)(cues(features.unsqueeze(0), attention.unsqueeze(0))), first) for _ in range(3))
