import numpy as np
import pytest

from llava.pruners import PRUNERS, resolve_pruner
from llava.selecting.options import Choice, PruningOptions, check_choice


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget_scope": "batch"}, "budget_scope 'batch' is not one of tile, image"),
        ({"positions": "gaps"}, "positions 'gaps' is not one of compact, original"),
        ({"text_chunking": None}, "text_chunking None is not one of release, bos_eos"),
        ({"attention": "sent"}, "attention 'sent' is not one of cls, received"),
        ({"relevance": "siglip"}, "relevance 'siglip' is not one of llm_text, clip_text"),
        ({"relevance": "clip_text"}, "need one another"),
        ({"text_tower": "clip"}, "need one another"),
        *(({"prune_layer": layer}, "an integer, 0 or more") for layer in (-1, True, 2.0, float("nan"), "2", None)),
        ({"prune_layer": 2, "positions": "compact"}, "positions are 'original'"),
        ({"pruner": resolve_pruner("fastv", 4)}, "fastv needs prune_layer of 1 or more"),
        ({"pruner": resolve_pruner("visionzip", 4), "prune_layer": 1}, "visionzip merges tokens"),
    ],
)
def test_what_holds_without_a_model_is_checked_without_one(options, message):
    with pytest.raises(ValueError, match=message):
        PruningOptions(**options)


@pytest.mark.parametrize("name", PRUNERS)
def test_every_pruner_has_a_layer_that_it_can_choose_at(name):
    pruner = resolve_pruner(name, 4)
    assert PruningOptions(pruner, prune_layer=np.int64(1) if name == "fastv" else 0).pruner is pruner


@pytest.mark.parametrize("value", [["tile"], {"tile"}, 1, np.array(["tile", "image"])])
def test_a_choice_of_another_type_is_none_of_the_valid_ones(value):
    with pytest.raises(ValueError, match="is not one of tile, image"):
        check_choice("budget_scope", value, (None, "tile", "image"))


def test_an_attribute_of_few_values_keeps_the_last_valid_one():
    class Model:
        scope = Choice(None, (None, "tile"))

    one, other = Model(), Model()
    one.scope = "tile"
    with pytest.raises(ValueError, match="scope 'batch' is not one of tile"):
        one.scope = "batch"
    assert (Model.scope, one.scope, other.scope) == (None, "tile", None)
    one.scope = None
    assert one.scope is None
