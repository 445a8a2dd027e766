"""LLaVA-NeXT-Video: cues of a token of a video are the mean of a square of patches."""

import pytest
import torch
from transformers.models.llava_next_video.modeling_llava_next_video import LlavaNextVideoPooler

from llava.pruning import prune
from llava.pruning.families.llava_next_video import LlavaNextVideoFamily, mean_of_squares


def test_the_mean_of_squares_by_hand():
    rows = torch.arange(16.0).view(1, 16)  # 0 1 2 3 / 4 5 6 7 / 8 9 10 11 / 12 13 14 15
    assert mean_of_squares(rows, 2).tolist() == [[2.5, 4.5, 10.5, 12.5]]
    channels = torch.stack([rows, -rows], dim=2)
    assert mean_of_squares(channels, 2)[0].tolist() == [[2.5, -2.5], [4.5, -4.5], [10.5, -10.5], [12.5, -12.5]]
    assert mean_of_squares(torch.arange(9.0).view(1, 9), 2).tolist() == [[2.0]]  # a rest of a row is cut off


def test_attention_of_a_video_is_averaged_over_the_patches_of_each_token(tiny_of, spy):
    tiny = tiny_of("llava_next_video", "eager")
    frames = tiny.inputs["pixel_values_videos"].flatten(0, 1)
    with prune(tiny.model, spy), torch.no_grad():
        tiny.model(**tiny.inputs)
        maps = tiny.model.model.vision_tower(frames, output_attentions=True).attentions
    told = next(cues for cues in spy.told if cues.shape[1] == 9)
    assert told.image_index.tolist() == [0, 0, 0, 1, 1, 1]
    patches = maps[-2][:, :, 0, 1:].mean(dim=1).view(6, 6, 6)
    for row in range(3):
        for column in range(3):
            square = patches[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            expected = square.mean(dim=(1, 2))
            torch.testing.assert_close(told.cls_attention[:, 3 * row + column], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("mode", ["average", "max", "conv"])
def test_features_of_a_video_are_those_that_the_projector_reads(tiny_of, spy, mode):
    tiny = tiny_of("llava_next_video")
    tiny.model.config.spatial_pool_mode = mode
    tiny.model.model.vision_resampler = LlavaNextVideoPooler(tiny.model.config)
    with prune(tiny.model, spy), torch.no_grad():
        tiny.model(**tiny.inputs)
        told = next(cues for cues in spy.told if cues.shape[1] == 9)
        embeds = tiny.model.model.multi_modal_projector(told.features)
    torch.testing.assert_close(embeds, told.embeds, atol=1e-5, rtol=1e-5)


def test_patches_for_a_text_tower_are_normalised_one_by_one_and_then_averaged(tiny_of):
    tiny = tiny_of("llava_next_video")
    family = LlavaNextVideoFamily(tiny.model)
    features = torch.randn(6, 36, 24)
    videos = {"pixel_values_videos": tiny.inputs["pixel_values_videos"]}
    first, _ = family.visuals("video", videos, {"features": features}, clip=True)
    normalised = tiny.model.model.vision_tower.post_layernorm(features[0])
    corner = normalised[[0, 1, 6, 7]].mean(dim=0)
    torch.testing.assert_close(first.cues["clip_patches"][0], corner, atol=1e-6, rtol=1e-5)
