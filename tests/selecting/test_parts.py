"""What a pruner chooses from at a time: the pruner's own word, and the model's over it."""

import pytest
import torch

from llava.pruners import PRUNERS, Pruner, resolve_pruner
from llava.selecting.parts import Part, Visual, budget_of, judges_newlines, parts_of

PUBLISHED = set("cdpruner divprune vispruner mfpruner random uniform cls_topk visionzip prumerge trim fastv".split())
"""Those whose scope is known here; what the table of pruners gains later tells its own."""


class Wide(Pruner):
    """A pruner of somebody else's that takes an image as a whole."""

    needs = frozenset({"embeds"})
    scope = "image"

    def select(self, cues, budget):
        return torch.arange(budget).repeat(cues.shape[0], 1)


def scope_of(pruner, scope, tiles) -> str:
    """Whether the tiles of an image are one part or several."""
    parts = [Part(torch.arange(4 * tile, 4 * tile + 4)) for tile in range(tiles)]
    found = parts_of(pruner, Visual(4 * tiles, parts), scope)
    assert sum(part.tiles for part in found) == tiles
    return "tile" if found is parts else "image"


def test_a_pruner_says_what_it_takes_an_image_for():
    wide = {name for name, pruner in PRUNERS.items() if pruner.scope == "image"}
    assert wide & PUBLISHED == {"divprune", "fastv"}
    assert scope_of(Wide(3), None, tiles=2) == "image"


@pytest.mark.parametrize("name", ["divprune", "vispruner"])
def test_the_models_word_counts_more(name):
    pruner = resolve_pruner(name, 3)
    assert [scope_of(pruner, scope, tiles=2) for scope in ("tile", "image")] == ["tile", "image"]


@pytest.mark.parametrize("name", PRUNERS)
def test_an_image_of_one_tile_is_a_tile(name):
    assert scope_of(resolve_pruner(name, 3), None, tiles=1) == "tile"


def test_budgets_of_tiles_add_up_and_shares_are_of_what_is_there():
    parts = [Part(torch.arange(20), tiles) for tiles in (1, 2, 9)]
    assert [budget_of(resolve_pruner("uniform", 3), part) for part in parts] == [3, 6, 20]
    assert [budget_of(resolve_pruner("uniform", keep_ratio=0.25), part) for part in parts] == [5, 5, 5]


def test_newlines_are_judged_by_embeddings_and_states_alone():
    judging = {name for name in PRUNERS if judges_newlines(resolve_pruner(name, 3))}
    assert judging & PUBLISHED == {"divprune", "fastv"} and judges_newlines(Wide(3))


@pytest.mark.parametrize("form", [True, "plain", "standardised"])
def test_a_centred_pruner_takes_tiles_and_no_newline_for_a_part_of_the_picture(form):
    pruner = resolve_pruner("divprune", 3, centered=form)
    assert scope_of(pruner, None, tiles=2) == "tile" and scope_of(pruner, "image", tiles=2) == "image"
    parts, newline = [Part(torch.arange(4)), Part(torch.tensor([4, 5, 7, 8]))], torch.arange(10) % 3 == 0
    (whole,) = parts_of(pruner, Visual(10, parts, newline=newline), "image")
    assert whole.positions.tolist() == [0, 1, 2, 3, 4, 5, 7, 8] and whole.tiles == 2


def test_a_frame_alone_stands_in_its_rows_whatever_the_scope():
    read = resolve_pruner("vispruner", 3)
    one, other = (Part(torch.arange(first, first + 6), grid=(2, 3)) for first in (0, 6))
    assert [part.grid for part in parts_of(read, Visual(6, [one]), "image")] == [(2, 3)]
    assert [part.grid for part in parts_of(read, Visual(12, [one, other]), "image")] == [None]
