"""Frames laid behind one another."""

import torch

from llava.pruning.families.video import frame_visuals


def test_frames_of_two_videos_lie_behind_one_another():
    features = torch.arange(2 * 3 * 4.0).view(6, 4, 1)  # 2 videos, 3 frames, 4 tokens, in the order of reading
    videos = frame_visuals({"features": features, "cls_attention": features.squeeze(2) / 100}, frames=3)
    assert [video.length for video in videos] == [12, 12]
    for start, video in zip((0, 12), videos, strict=True):
        assert torch.equal(video.cues["features"], torch.arange(start, start + 12.0).unsqueeze(1))
        assert torch.equal(video.cues["cls_attention"], torch.arange(start, start + 12.0) / 100)
        assert [part.positions.tolist() for part in video.parts] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
        assert {(part.tiles, part.group) for part in video.parts} == {(1, 0)}  # one budget each, common statistics
        assert video.newline is None and "clip_patches" not in video.cues


def test_a_newline_token_ends_a_video_and_is_in_no_frame():
    (video,) = frame_visuals({"features": torch.ones(2, 3, 5)}, frames=2, newline=True)
    assert video.length == 7 and video.cues["features"].shape == (7, 5)
    assert video.newline.tolist() == [False] * 6 + [True]
    assert torch.cat([part.positions for part in video.parts]).tolist() == list(range(6))


def test_an_image_is_a_video_of_one_frame():
    visuals = frame_visuals({"features": torch.randn(2, 3, 5)}, frames=1)
    assert [len(visual.parts) for visual in visuals] == [1, 1]
