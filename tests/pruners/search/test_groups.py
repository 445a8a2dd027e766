"""Groups of tokens that are alike: which there are, what repeats in them, and how many tokens each gives."""

import itertools

import pytest
import torch

from llava.pruners.search.groups import components, group_quotas, of_groups, repeats


def shares_of(members, picked, most, budget):
    """The plain rule of quotas."""
    low = [min(1, size) for size in members]
    while sum(most) < budget:
        most = [min(each + 1, size) for each, size in zip(most, members, strict=True)]
    other = budget - sum(low)
    upto = [0] + [round(upto * other) for upto in itertools.accumulate(number / sum(picked) for number in picked)]
    given = [min(a + upto[n + 1] - upto[n], b) for n, (a, b) in enumerate(zip(low, most, strict=True))]
    for number in sorted(range(len(picked)), key=lambda n: -picked[n]):
        while sum(given) < budget and given[number] < most[number]:
            given[number] += 1
    return given


@pytest.mark.parametrize(("tokens", "width"), [(20, 50), (50, 20), (30, 30)])
def test_a_token_belongs_to_the_singular_vector_that_it_has_most_of(tokens, width):
    features = torch.randn(tokens, width, generator=torch.Generator().manual_seed(tokens)).double()
    rows = features.sigmoid()
    rows = rows - rows.mean(dim=1, keepdim=True)
    expected = torch.linalg.svd(rows.T, full_matrices=False).Vh[:8].abs().argmax(dim=0)
    assert torch.equal(components(features, 8), expected)


def test_only_what_is_not_passed_over_passes_others_over():
    similar = torch.eye(5, dtype=torch.bool)
    for one, other in ((0, 1), (1, 2), (2, 4), (0, 3)):
        similar[one, other] = similar[other, one] = True
    group = torch.tensor([0, 0, 0, 1, 0])  # 1 repeats 0, so 2 stays, and 4 repeats it; 3 is of another group than 0
    assert repeats(similar, group).tolist() == [False, True, False, False, True]


def test_a_group_gives_what_repeats_nothing_first():
    group, repeated = torch.tensor([1, 0, 0, 1, 0]), torch.tensor([False, False, True, False, False])
    assert of_groups(group, repeated, [2, 1]).tolist() == [1, 4, 0]
    assert of_groups(group, repeated, [3, 0]).tolist() == [1, 4, 2]


@pytest.mark.parametrize("budget", [1, 7, 30, 100])
@pytest.mark.parametrize("seed", range(5))
def test_the_groups_give_what_is_asked_for(seed, budget):
    generator = torch.Generator().manual_seed(seed)
    members = torch.randint(0, 40, (max(1, budget // 4),), generator=generator).tolist()
    members[0] += budget
    picked = [int(torch.randint(1, size + 1, (1,), generator=generator)) if size else 0 for size in members]
    most = [min(5 + seed, each) for each in picked]
    given = group_quotas(members, picked, most, budget)
    assert sum(given) == budget and all(one <= size for one, size in zip(given, members, strict=True))
    assert given == shares_of(members, picked, most, budget)


def test_near_a_half_the_sum_of_the_shares_is_what_is_rounded():
    assert 7 / 22 + 8 / 22 > 15 / 22  # 11 of them are 7.5, or less by rounding
    assert group_quotas([99] * 3, [7, 8, 7], [5] * 3, 14) == shares_of([99] * 3, [7, 8, 7], [5] * 3, 14) == [5, 5, 4]
