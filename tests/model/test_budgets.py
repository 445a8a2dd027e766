"""Budgets that follow the picture in LLaVA's own models: counted after images are seen, before prompts are laid out."""

import json

import pytest
import torch
from PIL import Image

from llava.constants import IGNORE_INDEX
from llava.model.splice import visual_spans
from llava.pruners import resolve_pruner
from llava.selecting.options import PruningOptions
from llava.selecting.references import FILE

from .conftest import QUESTIONS, generate, question_prompts

SPECTRAL = {"budget": "spectral", "erank_ref": 13.0}
NEWER = ["scope", "mmtok", "eadp", "zoo_prune", "holov", "prunesid", "hiprune", "divprune centred"]
BUDGETS = [SPECTRAL, {"budget": "mass", "mass": 0.5}]


@pytest.fixture
def pictures() -> list[Image.Image]:
    """Three that show more and more: a ramp, noise on one colour, and noise."""
    generator = torch.Generator().manual_seed(5)
    noise = torch.randint(0, 256, (64, 64, 3), generator=generator, dtype=torch.uint8)
    half, ramp = noise.clone(), torch.arange(0, 256, 4, dtype=torch.uint8)[:, None, None].repeat(1, 64, 3)
    half[8:] = 90
    return [Image.fromarray(each.numpy()) for each in (ramp, half, noise)]


def test_pictures_that_show_more_keep_more(load, checkpoint, pictures):
    tokenizer, model, processor, _ = load(checkpoint, pruner="divprune", visual_token_num=16, **SPECTRAL)
    generate(model, tokenizer, processor, pictures, QUESTIONS, question_prompts(tokenizer, QUESTIONS))
    record = model.last_prune
    ranks, counts = [each.erank for each in record.budgets], [each.per_tile for each in record.budgets]
    assert ranks == sorted(ranks) and counts == sorted(counts) and counts[0] < counts[-1]
    assert record.visual_tokens == [min(count, 16) for count in counts] == [len(kept) for kept in record.keep]
    assert counts == [min(max(round(16 * rank / 13), 4), 48) for rank in ranks]


@pytest.mark.parametrize("positions", ["compact", "original"])
@pytest.mark.parametrize("more", BUDGETS)
@pytest.mark.parametrize(
    "name", ["divprune", "cdpruner", "random", "uniform", "cls_topk", "visionzip", "prumerge", *NEWER]
)
def test_a_batch_of_ragged_budgets_is_answered_as_its_prompts_are_alone(
    load, checkpoint, pictures, name, more, positions
):
    options = {"pruner": name, "visual_token_num": 16, "positions": positions, **more}
    options |= {"pruner": "divprune", "centered": True} if name == "divprune centred" else {}
    options |= {"object_layer": 1} if name == "hiprune" else {}
    tokenizer, model, processor, _ = load(checkpoint, **options)
    prompts = question_prompts(tokenizer, QUESTIONS)
    together = generate(model, tokenizer, processor, pictures, QUESTIONS, prompts)
    record = model.last_prune
    assert len(set(record.visual_tokens)) > 1
    for row, (picture, question, prompt) in enumerate(zip(pictures, QUESTIONS, prompts, strict=True)):
        alone = generate(model, tokenizer, processor, [picture], [question], [prompt])
        assert together[row, : alone.shape[1]].tolist() == alone[0].tolist()
        assert torch.equal(model.last_prune.keep[0], record.keep[row])
        assert model.last_prune.budgets == record.budgets[row : row + 1]


def test_a_budget_of_mass_is_that_of_a_layer_too(load, checkpoint, pictures):
    more = {"pruner": "fastv", "visual_token_num": 16, "prune_layer": 1, "budget": "mass", "mass": 0.5}
    tokenizer, model, processor, _ = load(checkpoint, **more)
    prompts = question_prompts(tokenizer, QUESTIONS)
    together = generate(model, tokenizer, processor, pictures, QUESTIONS, prompts)
    inside = model.last_prune
    for row in range(3):
        alone = generate(
            model, tokenizer, processor, pictures[row : row + 1], QUESTIONS[row : row + 1], prompts[row : row + 1]
        )
        assert together[row, : alone.shape[1]].tolist() == alone[0].tolist()
    model.pruning = PruningOptions(resolve_pruner("cls_topk", 16), budget="mass", mass=0.5)
    generate(model, tokenizer, processor, pictures, QUESTIONS, prompts)
    assert [each.per_tile for each in model.last_prune.budgets] == [each.per_tile for each in inside.budgets]


@pytest.mark.parametrize("more", BUDGETS)
@pytest.mark.parametrize("scope", ["tile", "image"])
@pytest.mark.parametrize("name", ["divprune", "cdpruner", "uniform"])
def test_tiles_and_newline_tokens_of_ragged_budgets(load, anyres_checkpoint, name, scope, more):
    model = load(anyres_checkpoint, pruner=name, visual_token_num=16, budget_scope=scope, **more)[1]
    generator = torch.Generator().manual_seed(1)
    images = [torch.randn(tiles, 3, 32, 32, generator=generator) for tiles in (5, 4, 4, 1)]
    images[1][1:] = 0.3
    sizes, texts = [(90, 70), (30, 96), (96, 30), (32, 32)], ["What?", None, "How many are there?", "Is it red?"]
    with torch.no_grad():
        found, _ = model.read_batch(model.plan_batch(images, sizes, texts, model.pruning))
    record, first = model.last_prune, 0
    assert len({each.per_tile for each in record.budgets}) > 1
    assert [each.tiles for each in record.budgets] == [5, 4, 4, 1]
    for number, count in enumerate(found.counts):
        plan = model.plan_batch(images[number : number + 1], sizes[number : number + 1], [texts[number]], model.pruning)
        with torch.no_grad():
            alone, _ = model.read_batch(plan)
        assert alone.counts == [count] and torch.equal(alone.positions, record.keep[number])
        assert torch.equal(found.embeds[first : first + count], alone.embeds)
        assert model.last_prune.budgets == record.budgets[number : number + 1]
        assert record.visual_tokens[number] == count >= record.budgets[number].kept
        first += count


def test_labels_lie_beside_the_tokens_that_are_kept(load, checkpoint, pictures):
    tokenizer, model, processor, _ = load(checkpoint, pruner="divprune", visual_token_num=16, **SPECTRAL)
    prompts = question_prompts(tokenizer, QUESTIONS)
    length = max(map(len, prompts))
    ids = torch.stack([torch.nn.functional.pad(row, (0, length - len(row))) for row in prompts])
    mask = torch.stack([torch.arange(length) < len(row) for row in prompts])
    labels = ids.masked_fill(~mask, IGNORE_INDEX)
    pixels = processor(pictures, return_tensors="pt")["pixel_values"]
    _, _, grown, _, embeds, targets = model.prepare_inputs_labels_for_multimodal(
        ids, None, mask, None, labels, pixels, None, QUESTIONS
    )
    counts = model.last_prune.visual_tokens
    assert len(set(counts)) > 1
    assert grown.sum(dim=1).tolist() == [len(row) - 1 + count for row, count in zip(prompts, counts, strict=True)]
    for row, (prompt, count) in enumerate(zip(prompts, counts, strict=True)):
        (span,) = visual_spans(prompt, [type("Span", (), {"count": count})])
        assert (targets[row, slice(*span)] == IGNORE_INDEX).all()
        assert torch.equal(targets[row, span[1] : grown[row].sum()], prompt[span[0] + 1 :])
    assert torch.isfinite(model(inputs_embeds=embeds, attention_mask=grown, labels=targets).loss)


def test_one_call_has_its_own_budget(load, checkpoint, pictures):
    tokenizer, model, processor, _ = load(checkpoint, pruner="divprune", visual_token_num=16)
    prompts = question_prompts(tokenizer, QUESTIONS)
    plain = generate(model, tokenizer, processor, pictures, QUESTIONS, prompts)
    assert model.last_prune.budgets is None and model.last_prune.visual_tokens == [16] * 3
    own = PruningOptions(resolve_pruner("divprune", 16), **SPECTRAL)
    generate(model, tokenizer, processor, pictures, QUESTIONS, prompts, pruning=own)
    assert model.last_prune.budgets is not None and min(model.last_prune.visual_tokens) < 16
    assert torch.equal(generate(model, tokenizer, processor, pictures, QUESTIONS, prompts), plain)


def test_the_checkpoint_brings_its_reference_or_there_is_an_error(load, make_checkpoint, pictures):
    folder = make_checkpoint(name="measured")
    wanted = {"pruner": "divprune", "visual_token_num": 16, "budget": "spectral"}
    with pytest.raises(ValueError, match="erank_ref is missing for budget 'spectral'.*llava.eval calibrate"):
        load(folder, **wanted)
    plain = load(folder)[1]
    with pytest.raises(ValueError, match="erank_ref is missing"):
        plain.pruning = PruningOptions(resolve_pruner("divprune", 16), budget="spectral")
    (folder / FILE).write_text(json.dumps({"erank_ref": {"16": {"erank_ref": 13.0}}}))
    tokenizer, model, processor, _ = load(folder, **wanted)
    prompts = question_prompts(tokenizer, QUESTIONS)
    generate(model, tokenizer, processor, pictures, QUESTIONS, prompts)
    stored = model.last_prune
    model.pruning = PruningOptions(resolve_pruner("divprune", 16), **SPECTRAL)
    generate(model, tokenizer, processor, pictures, QUESTIONS, prompts)
    assert [each.per_tile for each in stored.budgets] == [each.per_tile for each in model.last_prune.budgets]


def test_a_limit_cuts_prompts_as_they_are_kept(load, checkpoint, pictures):
    tokenizer, model, processor, _ = load(checkpoint, pruner="divprune", visual_token_num=16, **SPECTRAL)
    prompts = question_prompts(tokenizer, QUESTIONS)
    generate(model, tokenizer, processor, pictures, QUESTIONS, prompts)
    lengths = [len(row) - 1 + kept for row, kept in zip(prompts, model.last_prune.visual_tokens, strict=True)]
    model.config.tokenizer_model_max_length = min(lengths) - 1
    generate(model, tokenizer, processor, pictures, QUESTIONS, prompts)
    assert model.last_prune.cut == [length - min(lengths) + 1 for length in lengths]


def test_tiles_share_a_budget_by_their_importance(load, anyres_checkpoint):
    """An image by itself and beside others, with a question and without one."""
    split = {"pruner": "cdpruner", "visual_token_num": 4, "budget_split": "importance"}
    model = load(anyres_checkpoint, anyres="fixed", **split)[1]
    generator = torch.Generator().manual_seed(1)
    images = [torch.randn(tiles, 3, 32, 32, generator=generator) for tiles in (5, 5, 1)]
    sizes, texts = [(90, 70), (64, 64), (32, 32)], ["Is the circle in front of a red wall?", None, "What?"]
    with torch.no_grad():
        found, _ = model.read_batch(model.plan_batch(images, sizes, texts, model.pruning))
    budgets = model.last_prune.budgets
    assert found.counts == [20, 20, 4] and [each.per_tile for each in budgets] == [4, 4, 4]
    assert len({*budgets[0].parts}) > 1 and budgets[1].parts == [4] * 5
    with torch.no_grad():
        alone, _ = model.read_batch(model.plan_batch(images[:1], sizes[:1], texts[:1], model.pruning))
    assert model.last_prune.budgets == budgets[:1]
    assert torch.equal(alone.embeds, found.embeds[:20])


def test_a_layout_that_cuts_tiles_cannot_be_split(load, anyres_checkpoint):
    model = load(anyres_checkpoint, pruner="cdpruner", visual_token_num=4, budget_split="importance")[1]
    batch = model.plan_batch([torch.zeros(5, 3, 32, 32)], [(90, 70)], ["What?"], model.pruning)
    with pytest.raises(ValueError, match='splits a budget among tiles of one size.*anyres="fixed"'), torch.no_grad():
        model.read_batch(batch)
