"""InternVL: cues of patches become those of tokens, tiles become images."""

import pytest
import torch
from torch.nn.functional import avg_pool2d

from llava.pruning import prune
from llava.pruning.families import family_of
from llava.selecting.parts import Part, Visual


@pytest.mark.parametrize("attention", ["cls", "received"])
def test_pruners_are_told_the_mean_over_the_patches_of_each_token(tiny_of, spy, attention):
    tiny = tiny_of("internvl")
    with prune(tiny.model, spy, attention=attention), torch.no_grad():
        tiny.model(**tiny.inputs)
        tiny.model.set_attn_implementation("eager")
        maps = tiny.model.model.vision_tower(tiny.inputs["pixel_values"], output_attentions=True).attentions[-1]
    received = maps[:, :, 0] if attention == "cls" else maps.mean(dim=2)
    patches = received.mean(dim=1)[:, 1:].view(7, 1, 8, 8)
    (told,) = spy.told
    torch.testing.assert_close(told.cls_attention, avg_pool2d(patches, 2).flatten(1), atol=1e-6, rtol=1e-5)


def test_features_are_what_the_projector_reads(tiny_of, spy):
    tiny = tiny_of("internvl")
    with prune(tiny.model, spy), torch.no_grad():
        tiny.model(**tiny.inputs)
        (told,) = spy.told
        embeds = tiny.model.model.multi_modal_projector(told.features)
    torch.testing.assert_close(embeds, told.embeds, atol=1e-5, rtol=1e-5)


def test_the_tiles_of_an_image_are_those_without_anything_between(tiny_of, spy):
    tiny = tiny_of("internvl")
    with prune(tiny.model, spy) as record, torch.no_grad():
        tiny.model(**tiny.inputs)
    assert record.tokens_before == [48, 16, 48]
    assert record.visual_tokens == [3, 1, 3]
    assert spy.told[0].image_index.tolist() == [0, 0, 0, 1, 2, 2, 2]
    with prune(tiny.model, "divprune", visual_token_num=5, budget_scope="image") as record, torch.no_grad():
        tiny.model(**tiny.inputs)
    assert record.visual_tokens == [15, 5, 15]


@pytest.mark.parametrize(
    "rows, columns, lengths",
    [
        ([0, 0, 0, 0], [2, 3, 4, 5], [4]),
        ([0, 0, 0, 0], [2, 3, 5, 6], [2, 2]),
        ([0, 0, 1, 1], [2, 3, 4, 5], [2, 2]),
        ([0, 0, 1, 1], [2, 3, 2, 3], [2, 2]),
    ],
)
def test_prompts_and_gaps_tell_images_apart(tiny_of, rows, columns, lengths):
    family = family_of(model := tiny_of("internvl").model)(model)
    tiles = [Visual(2, [Part(torch.arange(2))], {"features": torch.full((2, 1), float(tile))}) for tile in range(2)]
    images = family.grouped(tiles, torch.tensor(rows), torch.tensor(columns))
    assert [image.length for image in images] == lengths
    assert torch.cat([image.cues["features"] for image in images]).flatten().tolist() == [0, 0, 1, 1]
    if len(images) == 1:
        assert [part.positions.tolist() for part in images[0].parts] == [[0, 1], [2, 3]]


def test_a_text_tower_is_refused(tiny_of):
    with pytest.raises(ValueError, match='needs a CLIP encoder .* use relevance="llm_text"'):
        prune(tiny_of("internvl").model, "cdpruner", visual_token_num=2, relevance="clip_text", text_tower="clip")
