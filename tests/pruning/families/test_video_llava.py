"""Video-LLaVA: two encoders, and the [CLS] token of every frame."""

import pytest
import torch

from llava.pruning import prune


def test_every_frame_is_chosen_from_with_its_cls_token(tiny_of, spy):
    tiny = tiny_of("video_llava")  # image, video of two frames, image; video of two frames
    with prune(tiny.model, spy) as record:
        tiny.model(**tiny.inputs)
    images, frames = sorted(spy.told, key=lambda cues: cues.shape[1])
    assert images.shape == (2, 16) and frames.shape == (4, 17)
    assert frames.image_index.tolist() == [0, 0, 1, 1]
    assert [kept.tolist() for kept in record.keep] == [[0], [0, 17], [0], [0, 17]]


def test_attention_of_a_frame_is_the_row_of_cls_from_the_video_encoder(tiny_of, spy):
    tiny = tiny_of("video_llava", "eager")
    frames = tiny.inputs["pixel_values_videos"].flatten(0, 1)
    with prune(tiny.model, spy), torch.no_grad():
        tiny.model(**tiny.inputs)
        maps = tiny.model.model.video_tower(frames, output_attentions=True).attentions
    told = next(cues for cues in spy.told if cues.shape[1] == 17)
    torch.testing.assert_close(told.cls_attention, maps[-2][:, :, 0].mean(dim=1), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(told.cls_attention.sum(dim=1), torch.ones(4))  # [CLS] to itself included


def test_a_frame_with_its_cls_token_stands_in_no_rows(tiny_of):
    tiny = tiny_of("video_llava")
    hiprune = prune(tiny.model, "hiprune", visual_token_num=4, object_layer=2)
    with hiprune, pytest.raises(ValueError, match="how many tokens are in a row: 17 are no square"):
        tiny.model(**tiny.inputs)
