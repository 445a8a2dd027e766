"""HoloV: every stretch of the image keeps its share."""

import math

import pytest
import torch

from llava.pruners import VisualCues
from llava.pruners.holov import HoloV


def cues(embeds, attention):
    return VisualCues(features=None, embeds=embeds, cls_attention=torch.as_tensor(attention).float())


def score_of(tokens, attention, alpha):
    """What one stretch counts, token by token in float64."""
    size = len(tokens)
    if size == 1:
        return attention[0].item()
    unit = tokens.double() / (tokens.double().norm(dim=1, keepdim=True) + 1e-6)
    cosine = (unit @ unit.T).fill_diagonal_(0)
    mean = cosine.sum(dim=1, keepdim=True) / (size - 1)
    varied = (cosine - mean).square().sum(dim=1) / (size - 1)
    raised = 1000 * attention.double()
    return (raised + alpha * varied * raised.mean() / (varied.mean() + 1e-6)).mean().item()


def plainly(tokens, attention, budget, patches, alpha):
    """The rule of one row of tokens."""
    stretches = [part.tolist() for part in torch.arange(len(tokens)).tensor_split(patches) if len(part)]
    scores = [score_of(tokens[part], attention[part], alpha) for part in stretches]
    shares = [score / (sum(scores) + 1e-6) for score in scores]
    by_share = sorted(range(len(shares)), key=lambda number: -shares[number])
    quotas = [math.floor(share * budget) for share in shares]
    for number in by_share[: budget - sum(quotas)]:
        quotas[number] += 1
    quotas = [min(quota, len(part)) for quota, part in zip(quotas, stretches, strict=True)]
    while sum(quotas) < budget:
        for number in by_share:
            if sum(quotas) < budget and quotas[number] < len(stretches[number]):
                quotas[number] += 1
    kept = [sorted(part, key=lambda n: -attention[n])[:quota] for part, quota in zip(stretches, quotas, strict=True)]
    return sorted(sum(kept, []))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("tokens", "patches"), [(48, 16), (50, 16), (17, 16), (16, 16), (9, 16), (31, 1), (40, 7), (60, 59)]
)
def test_it_is_the_plain_rule(tokens, patches, seed):
    generator = torch.Generator().manual_seed(seed)
    embeds = torch.randn(tokens, 12, generator=generator)
    spread = 1 + 3 * seed  # up to attention that is all on a few tokens, whose stretches are too short for their share
    attention = (spread * torch.randn(tokens, generator=generator)).softmax(dim=0)
    for budget in {1, tokens // 3, tokens // 2, tokens - 1}:
        keep = HoloV(budget, num_patches=patches)(cues(embeds.unsqueeze(0), attention.unsqueeze(0)))
        assert keep.tolist() == [plainly(embeds, attention, budget, patches, 0.09)]


def test_a_stretch_keeps_its_share_of_attention_and_the_most_attended_of_it():
    attention = [[0.4, 0.2, 0.1, 0.05, 0.1, 0.05, 0.05, 0.05]]
    keep = HoloV(4, num_patches=2)(cues(torch.randn(1, 8, 5, generator=torch.Generator().manual_seed(0)), attention))
    assert keep.tolist() == [[0, 1, 2, 4]]


def test_what_a_short_stretch_cannot_keep_goes_to_the_others_by_their_share():
    attention = [[0.45, 0.45, 0.01, 0.02, 0.03, 0.02, 0.01, 0.01]]  # stretches of 2: shares .9, .03, .05, .02
    keep = HoloV(5, num_patches=4)(cues(torch.eye(8).unsqueeze(0), attention))
    assert keep.tolist() == [[0, 1, 3, 4, 6]]


def test_stretches_of_single_tokens_are_kept_by_attention():
    attention = torch.rand(1, 9, generator=torch.Generator().manual_seed(0))
    keep = HoloV(4)(cues(torch.eye(9).unsqueeze(0), attention))
    assert torch.equal(keep, attention.topk(4).indices.sort().values)


def test_without_attention_every_stretch_gives_alike():
    keep = HoloV(8, num_patches=4)(cues(torch.eye(16).unsqueeze(0), torch.zeros(1, 16)))
    assert keep.tolist() == [[0, 1, 4, 5, 8, 9, 12, 13]]


def test_the_variation_of_similarities_all_but_cancels():
    generator = torch.Generator().manual_seed(1)
    embeds, attention = torch.randn(4, 90, 16, generator=generator), torch.rand(4, 90, generator=generator)
    expected = HoloV(30, alpha=0.0)(cues(embeds, attention))
    assert torch.equal(HoloV(30, alpha=5.0)(cues(embeds, attention)), expected)


def test_a_stretch_of_equal_tokens_lacks_what_the_others_gain():
    # equal attention: the first stretch has no variation, so the others' part is larger
    embeds = torch.cat([torch.ones(1, 9, 9), torch.eye(9).unsqueeze(0), -torch.eye(9).unsqueeze(0)], dim=1)
    embeds[:, 9:] += torch.randn(1, 18, 9, generator=torch.Generator().manual_seed(0))
    keep = HoloV(3, num_patches=3, alpha=9.0)(cues(embeds, torch.full((1, 27), 1 / 27)))[0]
    assert plainly(embeds[0], torch.full((27,), 1 / 27), 3, 3, 9.0) == keep.tolist()


@pytest.mark.parametrize(
    ("option", "values"), [("num_patches", [0, -1, 2.0, True]), ("alpha", [-0.1, float("nan"), float("inf"), "x"])]
)
def test_an_option_out_of_range_is_refused(option, values):
    for value in values:
        with pytest.raises(ValueError, match=f"{option} must be"):
            HoloV(8, **{option: value})
