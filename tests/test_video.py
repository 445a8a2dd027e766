"""Frames of videos, on files whose frames say their own number by how bright they are."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.video import VideoError, read_clip, sample_indices

STEP = 12  # of brightness from frame to frame, far more than compression loses


@pytest.fixture(scope="module")
def av():
    return pytest.importorskip("av", reason="reading videos needs PyAV, the extra `video`")


def brightness(frame):
    return round(frame.mean() / STEP)


def write_video(av, path, frames=20, size=(48, 32), codec="mpeg4", rate=10):
    """Grey frames, each ``STEP`` brighter than the one before it, whose left half is red."""
    width, height = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, width=width, height=height, pix_fmt="yuv420p")
        for number in range(frames):
            grey = np.full((height, width, 3), number * STEP, dtype=np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


@given(total=st.integers(1, 400), num_frames=st.integers(1, 64))
def test_indices_are_spread_evenly_from_the_first_frame_to_the_last(total, num_frames):
    indices = sample_indices(total, num_frames)
    assert len(indices) == min(total, num_frames) and indices[0] == 0
    assert num_frames == 1 or indices[-1] == total - 1
    gaps = np.diff(indices)
    assert not len(gaps) or (gaps.min() >= 1 and gaps.max() - gaps.min() <= 1)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.avi", "clip.mkv"])
@pytest.mark.parametrize("num_frames", [1, 2, 5, 8, 20])
def test_the_frames_are_those_at_the_indices(av, tmp_path, name, num_frames):
    clip = read_clip(write_video(av, tmp_path / name), num_frames)
    assert clip.frames.shape == (num_frames, 32, 48, 3) and clip.frames.dtype == np.uint8
    assert [brightness(frame) for frame in clip.frames] == clip.indices == sample_indices(20, num_frames)
    assert (clip.total, clip.fps) == (20, 10.0)


def test_a_short_video_comes_whole(av, tmp_path):
    clip = read_clip(write_video(av, tmp_path / "clip.mp4", frames=3), 8)
    assert [brightness(frame) for frame in clip.frames] == clip.indices == [0, 1, 2]


def test_colours_are_red_green_blue(av, tmp_path):
    path = tmp_path / "red.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10, width=32, height=32, pix_fmt="yuv420p")
        red = np.zeros((32, 32, 3), dtype=np.uint8)
        red[..., 0] = 250
        for packet in [*stream.encode(av.VideoFrame.from_ndarray(red, format="rgb24")), *stream.encode()]:
            container.mux(packet)
    means = read_clip(path, 1).frames.mean(axis=(0, 1, 2))
    assert means[0] > 200 and means[1:].max() < 30


@pytest.mark.parametrize("promised", [5, 40])
def test_a_header_that_promises_other_frames_is_not_believed(av, tmp_path, promised):
    path = write_video(av, tmp_path / "clip.avi", frames=12)
    content = bytearray(path.read_bytes())
    length = content.index(b"strh") + 40  # where an AVI says how long its first stream is
    assert int.from_bytes(content[length : length + 4], "little") == 12
    content[length : length + 4] = promised.to_bytes(4, "little")
    path.write_bytes(content)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == promised
    clip = read_clip(path, 4)
    assert clip.total == 12 and clip.indices == sample_indices(12, 4)
    assert [brightness(frame) for frame in clip.frames] == clip.indices


def test_a_video_cut_off_in_a_frame_is_not_passed_off_as_whole(av, tmp_path):
    path = write_video(av, tmp_path / "clip.avi", frames=12)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10])
    with pytest.raises(VideoError, match="clip.avi: cannot be decoded"):
        read_clip(path, 4)


def test_what_is_wrong_with_a_file_is_said_with_its_name(av, tmp_path):
    with pytest.raises(VideoError, match="missing.mp4: no such file"):
        read_clip(tmp_path / "missing.mp4", 4)
    (tmp_path / "text.mp4").write_text("no video at all")
    with pytest.raises(VideoError, match="text.mp4: cannot be decoded"):
        read_clip(tmp_path / "text.mp4", 4)
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 800), dtype=np.int16), format="s16", layout="mono")
        silence.sample_rate = 8000
        for packet in [*stream.encode(silence), *stream.encode()]:
            container.mux(packet)
    with pytest.raises(VideoError, match="sound.wav: holds no video stream"):
        read_clip(tmp_path / "sound.wav", 4)


def test_a_wrong_number_of_frames_is_named(tmp_path):
    with pytest.raises(ValueError, match="num_frames must be 1 or more, not 0"):
        read_clip(tmp_path / "clip.mp4", 0)


def test_a_missing_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r"\.\[video\]"):
        read_clip(tmp_path / "clip.mp4", 4)


def test_frames_of_another_size_are_scaled_to_the_first(av, tmp_path):
    parts = [
        write_video(av, tmp_path / name, 5, size, "mpeg2video", 25)
        for name, size in (("a.ts", (48, 32)), ("b.ts", (64, 96)))
    ]
    (tmp_path / "clip.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    with av.open(str(tmp_path / "clip.ts")) as container:
        assert len({(frame.width, frame.height) for frame in container.decode(video=0)}) == 2
    clip = read_clip(tmp_path / "clip.ts", 8)
    assert clip.frames.shape == (8, 32, 48, 3)
    assert brightness(clip.frames[-1]) == 4  # the last of the second part


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"RIFF\x00\x00\x00\x00AVI ", b"\x00\x00\x00\x18ftypmp42"])
def test_files_without_a_video_are_one_kind_of_error(av, tmp_path, content):
    (tmp_path / "clip.mp4").write_bytes(content)
    with pytest.raises(VideoError, match="clip.mp4"):
        read_clip(tmp_path / "clip.mp4", 4)


def test_a_folder_is_no_video(av, tmp_path):
    with pytest.raises(VideoError, match="no such file"):
        read_clip(tmp_path, 4)
