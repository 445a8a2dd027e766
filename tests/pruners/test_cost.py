"""What a selection costs, in operations, products and bytes: counts, which are the same on every machine.

Times are compared with those of the plain form by ``-m slow``, in one process and thread.
"""

import dataclasses
from functools import partial

import pytest
import torch

from llava.bench import reference
from llava.bench.harness import Counter, measure, threads
from llava.pruners import PRUNERS, VisualCues
from llava.pruners.search import coverage
from llava.pruners.vispruner import VisPruner

FOUR = ("cdpruner", "divprune", "vispruner", "mfpruner")
COVERING = ("scope", "mmtok", "eadp")


def cues_of(tokens, width, tiles=1, device="cpu"):
    generator = None if device == "meta" else torch.Generator().manual_seed(tokens)

    def draw(*shape):
        return torch.randn(shape, generator=generator, device=device)

    embeds = draw(tiles, tokens, width)
    numbers = {name: draw(tiles, tokens) for name in ("cls_attention", "relevance", "padding")}
    numbers["cls_attention"] = numbers["cls_attention"].softmax(dim=1)
    texts = {"text_tokens": draw(tiles, 8, width), "text_sequence": draw(tiles, 1, 77, 16)}
    return VisualCues(embeds, embeds, **numbers, joint_embeds=draw(tiles, tokens, 16), **texts)


def products(call, width):
    """Floating-point operations of all matrix products over the width of the tokens."""
    with Counter(width=width) as counter:
        call()
    return counter.gram_flops


def dispatched(call):
    with Counter() as counter:
        call()
    return counter.ops


def peak_bytes(call):
    with Counter() as counter:
        call()
    return counter.peak_bytes


@pytest.mark.parametrize(
    ("name", "limit"), [("cdpruner", 9), ("divprune", 4), ("scope", 9), ("mmtok", 13), ("eadp", 8)]
)
def test_another_kept_token_takes_few_operations_where_nothing_is_read_back(name, limit):
    cues = cues_of(576, 64, tiles=5, device="meta")
    few, many = (dispatched(lambda budget=budget: PRUNERS[name](budget)(cues)) for budget in (20, 120))
    assert 0 < many - few <= 100 * limit


@pytest.mark.parametrize("name", [*FOUR, *COVERING])
def test_more_tiles_take_no_more_operations_where_nothing_is_read_back(name):
    one, five = (cues_of(144, 32, tiles=tiles, device="meta") for tiles in (1, 5))
    assert dispatched(lambda: PRUNERS[name](16)(one)) == dispatched(lambda: PRUNERS[name](16)(five))


def test_a_round_of_duplicate_removal_takes_at_most_ten_operations():
    few, many = (
        dispatched(lambda kept=kept: VisPruner(kept, important_ratio=0.0)(cues_of(576, 64, device="meta")))
        for kept in (560, 400)
    )
    assert 0 < many - few <= 20 * 10  # 2 rounds against 22


@pytest.mark.parametrize(
    ("name", "budget", "share"),
    [
        ("cdpruner", 16, 0.25),  # 24 rows at once, and few more
        ("cdpruner", 200, 0.6),  # beyond a third of the tokens the upper half of the Gram
        ("divprune", 64, 0.6),
        ("vispruner", 64, 0.6),  # once, not once per round
        ("mfpruner", 64, 0.01),  # two mat-vecs
        ("scope", 64, 0.6),
        ("mmtok", 64, 0.65),  # and the words
        ("eadp", 64, 0.6),
    ],
)
def test_products_are_a_share_of_the_full_gram(name, budget, share):
    cues = cues_of(512, 256)
    full = 2 * 512 * 512 * 256
    assert 0 < products(lambda: PRUNERS[name](budget)(cues), width=256) <= share * full


def test_kernel_rows_are_computed_in_blocks_and_rarely_in_vain():
    cues = cues_of(576, 256)
    row = 2 * 576 * 256
    for budget in (32, 64, 96, 128, 192):
        rows = products(lambda budget=budget: PRUNERS["cdpruner"](budget)(cues), width=256) / row
        assert budget <= rows <= budget + 2 * max(24, budget // 4)


def test_the_memory_of_a_large_selection_is_a_tenth_of_the_plain_form():
    cues = cues_of(2880, 4096)
    plain = peak_bytes(lambda: reference.cdpruner(cues.embeds, cues.relevance, 288))
    assert peak_bytes(lambda: PRUNERS["cdpruner"](288)(cues)) <= 0.1 * plain


@pytest.mark.parametrize("name", [*FOUR, *COVERING])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_frames_of_a_video_are_one_set_without_all_pairs_in_memory(name, device):
    cues = cues_of(6272, 16, device=device)  # 32 frames of 196 tokens
    # The first rounds of duplicate removal are the largest.
    pruner = VisPruner(6250, important_ratio=0.0) if name == "vispruner" else PRUNERS[name](64)
    assert peak_bytes(lambda: pruner(cues)) <= 0.2 * 4 * 6272**2


def test_mfpruner_makes_no_copy_of_the_tokens():
    cues = cues_of(576, 512)
    assert peak_bytes(lambda: PRUNERS["mfpruner"](64)(cues)) < 0.1 * cues.embeds.nbytes


@pytest.mark.parametrize("name", COVERING)
@pytest.mark.parametrize(("tokens", "budget", "share"), [(576, 64, 0.25), (1152, 128, 0.15)])
def test_few_gains_are_computed_anew(name, tokens, budget, share, monkeypatch):
    looked_at = []

    def counted(beyond, num_tokens, whole=coverage._sum):
        looked_at.append(beyond.shape[0])
        return whole(beyond, num_tokens)

    monkeypatch.setattr(coverage, "_sum", counted)
    PRUNERS[name](budget)(cues_of(tokens, 256))
    assert tokens <= sum(looked_at) <= share * tokens * budget  # the plain form computes all for every pick


def plainly(name, cues, budget):
    """The plain form of a method: all pairs, then all gains for every pick."""
    if name == "scope":
        return reference.scope(cues.features, cues.cls_attention, budget)
    if name == "mmtok":
        return reference.mmtok(cues.features, cues.embeds, cues.text_tokens[0], budget)
    return reference.eadp(cues.embeds, cues.relevance, cues.joint_embeds, cues.text_sequence[0], budget)


@pytest.mark.slow
@pytest.mark.parametrize("name", COVERING)
@pytest.mark.parametrize(("tokens", "budget", "share"), [(576, 64, 1.0), (2880, 320, 0.3)])
def test_a_selection_takes_a_share_of_the_time_of_the_plain_form(name, tokens, budget, share):
    cues = dataclasses.replace(cues_of(tokens, 1024), padding=None)
    variants = {"ours": partial(PRUNERS[name](budget), cues), "plain": partial(plainly, name, cues, budget)}
    with threads(1):
        assert torch.equal(variants["ours"](), variants["plain"]())
        taken = measure(variants, torch.device("cpu"), reps=15 if tokens < 1000 else 3)
    assert taken["ours"].cpu_ms <= share * taken["plain"].cpu_ms
