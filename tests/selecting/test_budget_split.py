"""A budget that the tiles of an image share by their importance, whatever the budget is."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from llava.pruners import resolve_pruner
from llava.selecting.budgets import budgets_of
from llava.selecting.choose import choose
from llava.selecting.options import PruningOptions
from llava.selecting.parts import Part, Visual

from .test_budgets import SPECTRAL, options, seen

GOLDEN = Path(__file__).parents[1] / "golden"
SPLIT = {"budget_split": "importance"}


def asked(*lengths: int, seed: int = 0) -> Visual:
    """An image of tiles, of which the last alone has to do with the question."""
    visual = seen(*lengths, seed=seed)
    relevance = 0.1 * visual.cues["relevance"]
    relevance[visual.parts[-1].positions] += 9.0
    return replace(visual, cues={**visual.cues, "relevance": relevance})


@pytest.mark.parametrize("more", [{}, SPECTRAL, {"budget": "mass"}])
def test_a_split_keeps_the_budget_and_gives_most_to_the_tile_that_matters(more):
    visual = asked(36, 36, 36)
    even, split = (budgets_of(options("cdpruner", 16, **more, **extra), [visual])[0] for extra in ({}, SPLIT))
    assert split.kept == even.kept and split.per_tile == even.per_tile
    assert len({*even.parts}) == 1 and split.parts[2] > 2 * max(split.parts[:2])
    kept = choose(options("cdpruner", 16, **more, **SPLIT), [visual]).kept[0]
    assert [int(((kept >= 36 * tile) & (kept < 36 * tile + 36)).sum()) for tile in range(3)] == split.parts


def test_a_split_follows_the_words_of_the_question_too():
    """The relevance to the whole question is the same everywhere; its word means the tokens of the first tile."""
    visual = seen(36, 36)
    joint = torch.randn(72, 8)
    joint[:36] -= 5 * torch.eye(8)[0]  # by CLIP's sign, what matters lies on the other side
    words = torch.eye(8)[None, :1].repeat(1, 5, 1)
    cues = {**visual.cues, "relevance": torch.zeros(72), "joint_embeds": joint}
    both = replace(visual, cues=cues, texts={"text_sequence": words})
    whole = replace(visual, cues=cues)
    split, even = budgets_of(options("cdpruner", 16, **SPLIT), [both, whole])
    assert split.parts[0] > split.parts[1] and even.parts == [16, 16]


def test_eadp_splits_by_its_own_options():
    visual = asked(36, 36, 36)

    def parts(name, **more):
        return budgets_of(PruningOptions(resolve_pruner(name, 16, **more), **SPLIT), [visual])[0].parts

    assert parts("eadp") == parts("cdpruner")
    assert parts("eadp")[2] > parts("eadp", beta=0.3)[2] > 16 and parts("eadp", beta=0.0) == [16, 16, 16]


def test_a_split_in_a_batch_is_that_of_the_image_alone():
    chosen = options("cdpruner", 16, **SPLIT)
    visuals = [asked(36, 36, 36, seed=1), asked(36, seed=2), seen(25, 25, relevance=False), asked(49, 49, seed=3)]
    together = choose(chosen, visuals)
    assert [each.parts for each in together.budgets][1:3] == [[16], [16, 16]]
    for index, visual in enumerate(visuals):
        alone = choose(chosen, [visual])
        assert alone.budgets == together.budgets[index : index + 1]
        assert torch.equal(alone.kept[0], together.kept[index])


@pytest.mark.parametrize("name", ["cdpruner", "mfpruner", "cls_topk", "visionzip", "uniform"])
def test_a_tile_keeps_what_it_keeps_of_that_many_whatever_the_others_have(name):
    """Relevance is measured over all tiles of an image, and of no other."""
    visuals = [asked(36, 36, 36, seed=1), asked(36, 36, seed=2)]
    tokens = [visual.cues["features"] for visual in visuals]
    choice = choose(options(name, 16, budget_scope="tile", **SPLIT), visuals, tokens)
    assert len({*choice.budgets[0].parts}) > 1
    for number, budget in enumerate(choice.budgets):
        for tile, quota in enumerate(budget.parts):
            alike = choose(options(name, quota, budget_scope="tile"), visuals, tokens)
            own = [(kept[kept // 36 == tile]).tolist() for kept in (choice.kept[number], alike.kept[number])]
            assert own[0] == own[1] and len(own[0]) == quota
            if choice.merged is not None:
                made, known = (each.merged[number][own[0]] for each in (choice, alike))
                assert torch.equal(made, known)


@pytest.mark.parametrize("tokens", [0, 1, 36, 100])
def test_a_split_of_nothing_and_of_everything(tokens):
    (budget,) = budgets_of(options("cdpruner", tokens, **SPLIT), [asked(36, 36, 36)])
    assert budget.kept == min(tokens, 36) * 3 and (tokens != 1 or budget.parts == [1, 1, 1])


def test_what_is_laid_out_in_no_tiles_cannot_be_split():
    grid = Visual(30, [Part(torch.arange(10)), Part(torch.arange(10, 30), tiles=2)], asked(10, 20).cues)
    for visual in (grid, asked(10, 20)):
        with pytest.raises(ValueError, match='among tiles of one size, .* anyres="fixed"'):
            choose(options("cdpruner", 4, **SPLIT), [visual])


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("eadp_B[2-9]*.npz")), ids=lambda path: path.stem)
def test_eadp_splits_the_budget_of_an_image_as_recorded(path):
    """``quotas_exact`` and ``keep_mask_exact``: shares of importance, whole tokens, none dropped."""
    recorded = np.load(path)
    embeds, patches, texts, sequence = (
        torch.from_numpy(recorded[name]) for name in ("embeds", "image_embeds", "text_embeds", "text_sequence")
    )
    tiles, tokens = embeds.shape[:2]
    relevance = -(normalize(patches, dim=-1) @ normalize(texts, dim=-1).T).mean(dim=-1)
    cues = {"embeds": embeds, "joint_embeds": patches, "relevance": relevance}
    parts = [Part(torch.arange(tile * tokens, (tile + 1) * tokens)) for tile in range(tiles)]
    image = Visual(
        tiles * tokens,
        parts,
        {name: cue.flatten(0, 1) for name, cue in cues.items()},
        texts={"text_sequence": sequence},
    )
    choice = choose(options("eadp", int(recorded["T"]), **SPLIT), [image])
    assert choice.budgets[0].parts == recorded["quotas_exact"].tolist()
    assert choice.kept[0].tolist() == recorded["keep_mask_exact"].flatten().nonzero()[0].tolist()
