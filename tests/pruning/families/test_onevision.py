"""LLaVA-OneVision: grids scaled down to a limit, several images of a prompt without tiles, halved frames."""

import torch
from torch.nn.functional import interpolate

from llava.pruning import prune
from llava.pruning.families.onevision import OneVisionFamily


def attention_maps(tiny, pixels):
    """What every patch of every tile receives in the last block, (B, 4, 4)."""
    maps = tiny.model.model.vision_tower(pixels, output_attentions=True).attentions[-1]
    return maps.mean(dim=(1, 2)).view(-1, 4, 4)


def told(tiny, spy, tokens):
    with prune(tiny.model, spy):
        tiny.model(**tiny.inputs)
    return next(cues for cues in spy.told if cues.shape[1] == tokens)


@torch.no_grad()
def test_attention_of_a_grid_is_scaled_as_its_tokens_are(tiny_of, spy):
    tiny = tiny_of("onevision", "eager")
    tiles = attention_maps(tiny, tiny.inputs["pixel_values"][0])[1:]
    grid = torch.zeros(8, 8)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, 2)
        grid[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = tile
    expected = interpolate(grid[None, None], [5, 5], mode="bilinear").flatten()
    torch.testing.assert_close(told(tiny, spy, 25).cls_attention[0], expected, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_attention_of_a_frame_is_halved_as_its_tokens_are(tiny_of, spy):
    """Half of a size that is even is the mean of squares of four."""
    tiny = tiny_of("onevision", "eager")
    frames = attention_maps(tiny, tiny.inputs["pixel_values_videos"][0])
    expected = frames.view(3, 2, 2, 2, 2).mean(dim=(2, 4)).flatten(1)
    cues = told(tiny, spy, 4)
    torch.testing.assert_close(cues.cls_attention, expected, atol=1e-6, rtol=1e-5)
    assert cues.image_index.tolist() == [0, 0, 0]


def test_a_grid_has_the_budgets_of_its_tiles_and_newlines_stay(tiny_of, spy):
    tiny = tiny_of("onevision")
    with prune(tiny.model, spy) as record:
        tiny.model(**tiny.inputs)
    video, image, *alone = [kept.tolist() for kept in record.keep]
    assert video == [0, 4, 8, 12]  # a token of each of three frames, and the newline token
    newlines = [16 + 6 * row + 5 for row in range(5)]
    assert image == sorted([0, 16, 17, 18, 19, *newlines])  # one of the base, four of the grid of four tiles
    assert alone == [[0, 16], [0, 16]]
    assert record.newline_tokens == [1, 5, 1, 1]


def test_only_an_image_that_is_alone_in_its_prompt_is_cut_into_tiles(tiny_of):
    family = OneVisionFamily(tiny_of("onevision").model)
    sizes = torch.tensor([[16, 16], [8, 16], [16, 16]])
    assert family.tiles_of_images({"image_sizes": sizes}) == [5, 3, 5]
    assert family.tiles_of_images({"image_sizes": sizes, "batch_num_images": torch.tensor([1, 2])}) == [5, 1, 1]


@torch.no_grad()
def test_an_image_of_two_tiles_below_the_limit_is_not_scaled(tiny_of, spy):
    tiny = tiny_of("onevision", "eager")
    ids = torch.tensor([[1, *[90] * (16 + 4 * 9), 7]])
    pixels = tiny.inputs["pixel_values"][1:2]
    with prune(tiny.model, spy) as record:
        tiny.model(input_ids=ids, pixel_values=pixels, image_sizes=torch.tensor([[8, 16]]))
    assert record.tokens_before == [52]
    left, right = attention_maps(tiny, pixels[0, :3])[1:]
    (cues,) = [cues for cues in spy.told if cues.shape[1] == 32]
    expected = torch.cat([left, right], dim=1).flatten()
    torch.testing.assert_close(cues.cls_attention[0], expected, atol=1e-6, rtol=1e-5)
