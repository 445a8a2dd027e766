"""Budgets that follow the picture in Transformers' models: the prompts of a batch are shortened unequally."""

import copy
import json
from math import ceil

import pytest
import torch

from llava.pruners import resolve_pruner
from llava.pruning import prune, unprune
from llava.selecting.options import PruningOptions
from llava.selecting.references import FILE

NEWER = ["scope", "zoo_prune", "holov", "prunesid", "hiprune", "cdpruner centred"]
BUDGETS = [{"budget": "spectral", "erank_ref": 9.0}, {"budget": "mass", "mass": 0.6}]


def answers(model, inputs, **more):
    ids = model.generate(**inputs, max_new_tokens=4, do_sample=False, **more)
    return ids[:, inputs["input_ids"].shape[1] :]


@pytest.mark.parametrize("more", BUDGETS, ids=["spectral", "mass"])
def test_every_family_keeps_what_was_measured(tiny, more):
    with prune(tiny.model, "divprune", visual_token_num=16, **more) as record:
        answers(tiny.model, tiny.inputs)
        budgets, kept = record.budgets, record.keep
    assert len(budgets) == tiny.visuals and [each.kept for each in budgets] <= record.visual_tokens
    for budget, positions, before in zip(budgets, kept, record.tokens_before, strict=True):
        of_tile = ceil(budget.tokens / budget.tiles)
        assert min(4, of_tile) <= budget.per_tile <= 48 and budget.kept <= budget.per_tile * budget.tiles
        assert min(before, budget.kept) <= len(positions)
        assert (budget.erank is None) == (more["budget"] == "mass")
    again = answers(tiny.model, tiny.inputs)
    assert torch.equal(again, answers(tiny.model, tiny.inputs))  # nothing is left of it


@pytest.mark.parametrize("more", BUDGETS, ids=["spectral", "mass"])
@pytest.mark.parametrize("name", ["divprune", "cdpruner", "cls_topk", "uniform", "visionzip", *NEWER])
def test_a_batch_is_answered_as_its_prompts_are_alone(tiny_llava, name, more):
    model, inputs = tiny_llava.model, tiny_llava.inputs
    pixels = inputs["pixel_values"].clone()
    pixels[0] = pixels[0, :, :1, :1]  # of one colour
    inputs = {**inputs, "pixel_values": pixels}
    own = {"centered": True} if name == "cdpruner centred" else {"object_layer": 1} if name == "hiprune" else {}
    with prune(model, name.split()[0], visual_token_num=16, **own, **more) as record:
        together = answers(model, inputs)
        budgets, kept = record.budgets, record.keep
        assert len({each.per_tile for each in budgets}) > 1
        for row, shown in enumerate(([0, 1], [2])):
            real = inputs["attention_mask"][row].bool()
            alone = {"input_ids": inputs["input_ids"][row : row + 1, real], "pixel_values": pixels[shown]}
            alone["attention_mask"] = torch.ones_like(alone["input_ids"])
            assert torch.equal(answers(model, alone)[0], together[row])
            assert [each.per_tile for each in record.budgets] == [budgets[image].per_tile for image in shown]
            assert all(torch.equal(own, kept[image]) for own, image in zip(record.keep, shown, strict=True))


def test_beams_and_a_call_of_its_own(tiny_llava):
    model, inputs = tiny_llava.model, tiny_llava.inputs
    with prune(model, "divprune", visual_token_num=16) as record:
        plain = answers(model, inputs)
        assert record.budgets is None
        own = PruningOptions(resolve_pruner("divprune", 16), budget="spectral", erank_ref=20.0)
        answers(model, inputs, pruning=own, num_beams=2)
        assert len(record.budgets) == 3
        assert record.visual_tokens == [min(16, each.per_tile) for each in record.budgets]
        assert torch.equal(answers(model, inputs), plain)


def test_a_mass_is_kept_at_a_layer_too(tiny_llava):
    with prune(tiny_llava.model, "fastv", visual_token_num=16, prune_layer=1, budget="mass", mass=0.5) as record:
        answers(tiny_llava.model, tiny_llava.inputs)
    assert record.visual_tokens == [min(16, each.per_tile) for each in record.budgets]


def test_the_checkpoint_brings_its_reference_or_there_is_an_error(tiny_llava, tmp_path):
    model = tiny_llava.model
    with pytest.raises(ValueError, match="erank_ref is missing for budget 'spectral'"):
        prune(model, "divprune", visual_token_num=16, budget="spectral")
    assert not hasattr(model, "_pruning")
    model.save_pretrained(tmp_path)
    (tmp_path / FILE).write_text(json.dumps({"erank_ref": {"16": {"erank_ref": 20.0}}}))
    stored = type(model).from_pretrained(tmp_path, torch_dtype=torch.float32).eval()
    stored.generation_config = copy.deepcopy(model.generation_config)
    with prune(stored, "divprune", visual_token_num=16, budget="spectral") as record:
        answers(stored, tiny_llava.inputs)
        found = record.visual_tokens
    with prune(model, "divprune", visual_token_num=16, budget="spectral", erank_ref=20.0) as record:
        answers(model, tiny_llava.inputs)
    assert found == record.visual_tokens


def test_tiles_share_a_budget_by_their_relevance(tiny_of):
    """InternVL's: three tiles, one, and three."""
    tiny = tiny_of("internvl")
    with prune(tiny.model, "cdpruner", visual_token_num=4, budget_split="importance") as record:
        answers(tiny.model, tiny.inputs)
        assert record.visual_tokens == [12, 4, 12]
        assert [each.kept for each in record.budgets] == [12, 4, 12]
        assert len({*record.budgets[0].parts}) > 1


def test_what_is_chosen_of_a_whole_image_has_nothing_to_split(tiny_llava):
    with pytest.raises(ValueError, match="budget_split 'importance' needs budget_scope 'tile'"):
        prune(tiny_llava.model, "divprune", visual_token_num=8, budget_split="importance")
    unprune(tiny_llava.model)
