"""Merging: tokens are summed before the projector, and the sums stand where the pruner kept tokens."""

from dataclasses import dataclass

import pytest
import torch
from transformers import CLIPVisionModel

from llava.mm_utils import process_images
from llava.pruners import Pruner, resolve_pruner
from llava.pruners.functional import rank
from llava.selecting.options import PruningOptions

from .conftest import QUESTIONS, generate, left_pad, question_prompts


@dataclass(frozen=True)
class TopAttended(Pruner):
    """Keeps what [CLS] attends to."""

    needs = frozenset({"cls_attention"})

    def select(self, cues, budget):
        return rank(cues.cls_attention)[:, :budget]


@dataclass(frozen=True)
class Unchanged(TopAttended):
    """Makes every kept token of itself alone."""

    def merge(self, cues, keep):
        return torch.zeros(*keep.shape, cues.shape[1]).scatter_(2, keep.unsqueeze(2), 1.0)


@dataclass(frozen=True)
class WithMean(Unchanged):
    """Replaces the first kept token by the mean of all candidates."""

    def merge(self, cues, keep):
        weights = super().merge(cues, keep)
        weights[:, 0] = 1 / cues.shape[1]
        return weights


@dataclass(frozen=True)
class LastEmbeds(Unchanged):
    """Keeps the last candidates and reads nothing that newline tokens lack."""

    needs = frozenset({"embeds"})

    def select(self, cues, budget):
        batch, tokens = cues.shape
        return torch.arange(tokens - budget, tokens).repeat(batch, 1)


@pytest.fixture(params=["single", "native", "fixed"])
def loaded(request, load, checkpoint, anyres_checkpoint):
    if request.param == "single":
        return load(checkpoint)
    return load(anyres_checkpoint, anyres=request.param)


@pytest.fixture
def spliced(loaded, images):
    """Return a function that prunes, by tile or image, and gives ``inputs_embeds`` and the features of every tile."""
    tokenizer, model, processor, _ = loaded
    pixels = process_images(images, processor, model.config)
    ids, mask = left_pad(question_prompts(tokenizer, QUESTIONS))
    stacks = [tiles if tiles.ndim == 4 else tiles.unsqueeze(0) for tiles in pixels]

    def splice(pruner, scope=None):
        model.budget_scope = scope
        model.set_pruner(pruner)
        sizes = [image.size for image in images]
        with torch.no_grad():
            embeds = model.prepare_inputs_labels_for_multimodal(
                ids, None, mask, None, None, pixels, image_sizes=sizes, texts=QUESTIONS
            )[4]
            return embeds, [model.get_vision_tower()(stack) for stack in stacks]

    return splice


@pytest.mark.parametrize("scope", ["tile", "image"])
@pytest.mark.parametrize("budget", [0, 5, 1000])
def test_tokens_made_of_themselves_alone_are_the_kept_ones_bit_for_bit(spliced, scope, budget):
    assert torch.equal(spliced(Unchanged(budget), scope)[0], spliced(TopAttended(budget), scope)[0])


def test_a_merged_token_is_projected_after_merging_and_stands_in_its_place(loaded, spliced, images):
    model = loaded[1]
    plain, _ = spliced(TopAttended(5), "tile")
    merged, features = spliced(WithMean(5), "tile")
    record = model.last_prune
    for row, (keep, tiles) in enumerate(zip(record.keep, features, strict=True)):
        base = keep[keep < tiles.shape[1]]  # of the base tile, which comes first in every layout
        start = (plain[row] != merged[row]).any(dim=-1).nonzero()[0, 0]
        mean = model.get_model().mm_projector(tiles[0].mean(dim=0))
        torch.testing.assert_close(merged[row, start], mean, atol=1e-5, rtol=1e-4)
        rest = model.get_model().mm_projector(tiles[0][base[1:]])
        torch.testing.assert_close(merged[row, start + 1 : start + 5], rest, atol=1e-5, rtol=1e-4)
        rows = 2 if record.newline_tokens[row] else len(tiles)  # base and grid, or every tile
        assert int((plain[row] != merged[row]).any(dim=-1).sum()) == rows  # one token of each selection, no other


def test_merging_does_not_cross_images(spliced, loaded, images):
    """Each image's mean is its own: with the image as one set, too, where all its patches are candidates."""
    model = loaded[1]
    merged, features = spliced(WithMean(5), "image")
    plain, _ = spliced(TopAttended(5), "image")
    for row, tiles in enumerate(features):
        if model.last_prune.tokens_before[row] - model.last_prune.newline_tokens[row] != tiles.shape[:2].numel():
            continue  # without the padding, which is no candidate
        (changed,) = (plain[row] != merged[row]).any(dim=-1).nonzero().flatten()
        mean = model.get_model().mm_projector(tiles.flatten(0, 1).mean(dim=0))
        torch.testing.assert_close(merged[row, changed], mean, atol=1e-5, rtol=1e-4)


def test_tokens_are_projected_once(loaded, spliced):
    seen = []
    hook = loaded[1].get_model().mm_projector.register_forward_hook(lambda *_: seen.append(1))
    spliced(WithMean(5))
    hook.remove()
    assert len(seen) == 1


@pytest.mark.parametrize("scope", ["tile", "image"])
def test_newline_tokens_are_no_candidates_where_tokens_are_merged(loaded, spliced, scope):
    """They come into being after the projector; all of them stay, as with a pruner that cannot judge them."""
    spliced(LastEmbeds(5), scope)
    merging = loaded[1].last_prune.newline_tokens
    spliced(TopAttended(5), scope)
    assert merging == loaded[1].last_prune.newline_tokens


def test_visionzip_is_the_published_method_on_clip_as_it_is(load, checkpoint, clip_folder, images):
    """One image, five of sixteen tokens, two of them contextual, from eager attention maps and hooked keys."""
    tokenizer, model, processor, _ = load(checkpoint)
    pixels = process_images(images[:1], processor, model.config)
    clip = CLIPVisionModel.from_pretrained(clip_folder, attn_implementation="eager", dtype=torch.float32).eval()
    seen = []
    clip.encoder.layers[2].self_attn.k_proj.register_forward_hook(lambda _, __, output: seen.append(output[0, 1:]))
    with torch.no_grad():
        outputs = clip(pixels, output_hidden_states=True, output_attentions=True)
    features, scores = outputs.hidden_states[-2][0, 1:], outputs.attentions[-2][0, :, 0, 1:].sum(dim=0)
    keys = torch.nn.functional.normalize(seen[0].view(16, 4, 12).mean(dim=1), dim=-1)
    dominant = scores.topk(3).indices.tolist()
    rest = [n for n in range(16) if n not in dominant]
    targets = [rest[0], rest[6]]  # 13 tokens, a target every six
    tokens = {n: features[n] for n in dominant}
    for target in targets:
        mine = [n for n in rest if n not in targets and max(targets, key=lambda t: keys[n] @ keys[t]) == target]
        tokens[target] = features[target] + features[mine].mean(dim=0)
    expected = model.get_model().mm_projector(torch.stack([tokens[n] for n in sorted(tokens)]))

    model.set_pruner(resolve_pruner("visionzip", 5, contextual_ratio=0.4))
    ids = question_prompts(tokenizer, QUESTIONS[:1])[0].unsqueeze(0)
    embeds = model.prepare_inputs_labels_for_multimodal(ids, None, None, None, None, pixels)[4]
    start = ids[0].tolist().index(-200)
    assert model.last_prune.keep[0].tolist() == sorted(tokens)
    torch.testing.assert_close(embeds[0, start : start + 5], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("texts", [None, [QUESTIONS[0], None, QUESTIONS[2]]])
def test_trim_asks_for_the_texts_it_chooses_by(load, checkpoint, images, texts):
    tokenizer, model, processor, _ = load(checkpoint, pruner="trim", visual_token_num=5)
    with pytest.raises(ValueError, match="Trim chooses by the question: `texts` must have one for every image"):
        generate(model, tokenizer, processor, images, texts, question_prompts(tokenizer, QUESTIONS))


def test_options_that_need_each_other_are_set_in_any_order(load, checkpoint):
    model, fastv, merging = load(checkpoint)[1], resolve_pruner("fastv", 5), resolve_pruner("trim", 5)
    model.positions, model.pruner = "compact", fastv
    assert (model.pruner, model.prune_layer) == (fastv, 0)
    model.prune_layer = 1
    assert model.pruning == PruningOptions(fastv, prune_layer=1) and model.positions == "original"
    model.prune_layer = 0
    with pytest.raises(ValueError, match="fastv needs prune_layer of 1 or more"):
        assert model.pruning is None
    model.pruner = merging
    assert model.pruning == PruningOptions(merging)
