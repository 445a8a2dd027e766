"""A clip of an hour: no more of it is decoded than is looked at, and it fits in little memory."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from transformers.utils import is_torchvision_available

import llava.video
from llava.asking.conversations import conversation
from llava.asking.load import load
from llava.asking.questions import Question
from llava.video import VideoError, read_clip, sample_indices

av = pytest.importorskip("av", reason="reading videos needs PyAV, the extra `video`")

SECONDS, RATE, SIZE = 3600, 2, (64, 48)
BETWEEN_KEYS = 12
"""Frames from one key frame to the next."""
FRAMES = 16
MEMORY = 1536  # MiB
MEASURED = """
import torch
from tests.torchvision_operators import OPERATORS
from llava.model.memory import peak_mb
from llava.{module} import {name} as run
run({arguments})
print(peak_mb(torch.device("cpu")))
"""


def write(path, codec="mpeg4", frames=100, **options):
    """Frames that grow brighter, each with a stripe elsewhere; ``options`` are the encoder's."""
    pictures = []
    for number in range(20):
        picture = np.full((SIZE[1], SIZE[0], 3), 10 * number, dtype=np.uint8)
        picture[:, 3 * number : 3 * number + 5] = (250, 20, 120)
        pictures.append(av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p"))
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, width=SIZE[0], height=SIZE[1], pix_fmt="yuv420p")
        stream.codec_context.gop_size = BETWEEN_KEYS
        stream.codec_context.options = {key: str(value) for key, value in options.items()}
        for number in range(frames):
            frame = pictures[number * 7 % 20]
            frame.pts = number
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


@pytest.fixture(scope="module")
def hour(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("long") / "hour.mp4", frames=SECONDS * RATE)


class Counted:
    """An open video that counts the frames it decodes."""

    def __init__(self, container, counts):
        self.container, self.counts = container, counts

    def __enter__(self):
        self.container.__enter__()
        return self

    def __exit__(self, *error):
        self.container.__exit__(*error)

    def __getattr__(self, name):
        return getattr(self.container, name)

    def decode(self, *streams, **named):
        for frame in self.container.decode(*streams, **named):
            self.counts.append(frame.pts)
            yield frame


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """The frames that were decoded, by when they are shown."""
    counts = []
    opened = SimpleNamespace(error=av.error, open=lambda *place, **how: Counted(av.open(*place, **how), counts))
    monkeypatch.setattr(llava.video, "import_av", lambda: opened)
    return counts


def whole(path, indices):
    """The frames of the given numbers, of all that are decoded one after the other."""
    with av.open(str(path)) as container:
        wanted = set(indices)
        return [f.to_ndarray(format="rgb24") for number, f in enumerate(container.decode(video=0)) if number in wanted]


def test_no_more_of_an_hour_is_decoded_than_is_looked_at(hour, decoded):
    clip = read_clip(hour, FRAMES)
    assert (clip.total, clip.indices) == (SECONDS * RATE, sample_indices(SECONDS * RATE, FRAMES))
    assert len(clip.frames) == FRAMES <= len(decoded) <= FRAMES * BETWEEN_KEYS
    assert np.array_equal(clip.frames, whole(hour, clip.indices))


def test_a_question_about_a_file_decodes_no_more(hour, decoded):
    (video,) = conversation(Question("?", lambda: [str(hour)]), FRAMES).visuals
    assert len(video.frames) == FRAMES <= len(decoded) <= FRAMES * BETWEEN_KEYS
    assert video.metadata.total_num_frames == SECONDS * RATE and video.metadata.duration == SECONDS
    assert np.array_equal(video.frames, whole(hour, video.metadata.frames_indices))


FILES = [
    ("mpeg4", "clip.mp4", {"bf": 2}),
    ("mpeg4", "clip.mkv", {"bf": 2}),
    ("libx264", "clip.mkv", {"x264-params": "bframes=3:keyint=12"}),
    ("libvpx-vp9", "clip.webm", {"g": 12}),
]
MAYBE_WHOLE = [
    ("mpeg4", "clip.avi", {"bf": 2}),
    ("mpeg2video", "clip.ts", {"bf": 2}),
    ("ffv1", "clip.mkv", {}),
    ("libx264", "clip.mp4", {"x264-params": "bframes=3:keyint=12:open-gop=1:scenecut=0"}),
    ("libx265", "clip.mp4", {"x265-params": "bframes=3:keyint=12:open-gop=1:log-level=none"}),
]
"""Files that may be decoded whole: no index, or frames that FFmpeg before 7 does not find after a jump."""


@pytest.mark.parametrize(("codec", "name", "options"), FILES + MAYBE_WHOLE)
def test_the_frames_are_those_of_a_clip_that_is_decoded_whole(codec, name, options, tmp_path, decoded):
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    path = write(tmp_path / name, codec, **options)
    found = whole(path, range(100))
    for frames in (1, 2, 7, 40, 100):
        decoded.clear()
        clip = read_clip(path, frames)
        assert clip.total == len(found) == 100 and clip.indices == sample_indices(100, frames)
        assert np.array_equal(clip.frames, [found[index] for index in clip.indices])
        assert (codec, name, options) in MAYBE_WHOLE or len(decoded) <= min(100, frames * BETWEEN_KEYS) + BETWEEN_KEYS


def test_a_file_whose_index_is_wrong_is_decoded_whole(tmp_path, decoded, monkeypatch):
    path = write(tmp_path / "clip.mp4")
    survey = llava.video._survey

    def wrong(*place):
        announced, fps, (shown, keys) = survey(*place)
        return announced, fps, ([stamp + 1 for stamp in shown], keys)

    monkeypatch.setattr(llava.video, "_survey", wrong)
    clip = read_clip(path, 5)
    assert np.array_equal(clip.frames, whole(path, clip.indices)) and len(decoded) > 100


def test_a_clip_cut_off_in_the_middle_is_not_passed_off_as_whole(tmp_path):
    path = write(tmp_path / "clip.mkv")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10])
    try:
        clip = read_clip(path, 5)
    except VideoError:
        return
    found = whole(path, range(100))
    assert clip.total == len(found) < 100 and np.array_equal(clip.frames[-1], found[-1])


def peak_of(module: str, name: str, *arguments: object) -> float:
    """The most memory that a process of its own takes to call a function, in MiB."""
    code = MEASURED.format(module=module, name=name, arguments=", ".join(map(repr, arguments)))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return float(done.stdout.split()[-1])


@pytest.mark.parametrize("name", ["hour.mp4", "hour.avi"])
def test_an_hour_is_read_in_little_memory_whether_all_of_it_is_decoded_or_not(name, hour, tmp_path):
    path = hour if hour.name == name else write(tmp_path / name, frames=SECONDS * RATE)
    assert peak_of("video", "read_clip", str(path), FRAMES) < MEMORY // 2


@pytest.mark.skipif(not is_torchvision_available(), reason="Transformers' video processors need torchvision")
@pytest.mark.usefixtures("can_prune")
def test_a_question_about_an_hour_is_answered_in_little_memory(hour, tokenizer_folder, tmp_path, decoded):
    from transformers import LlamaTokenizer

    from tests.eval.ask.test_video import qwen2_5_vl

    tokenizer = LlamaTokenizer.from_pretrained(tokenizer_folder, add_bos_token=True, pad_token="</s>")
    model, asked = qwen2_5_vl(tokenizer, tmp_path / "model"), tmp_path / "q.jsonl"
    asked.write_text(json.dumps({"question_id": 1, "video": hour.name, "text": "What?"}))
    words = ["video", "--model-path", model, "--question-file", str(asked), "--video-folder", str(hour.parent)]
    words += ["--answers-file", str(tmp_path / "a.jsonl"), "--for_get_frames_num", str(FRAMES), "--max_new_tokens", "2"]
    words += ["--pruner", "divprune", "--keep_ratio", "0.5", "--device", "cpu", "--num_workers", "0"]
    assert peak_of("eval.__main__", "main", words) < MEMORY
    metadata = json.loads((tmp_path / "a.jsonl").read_text())["metadata"]
    assert metadata["frames"] == FRAMES and metadata["visual_tokens"] * 2 == metadata["tokens_before"]
    clip, pruning = str(hour), {"pruner": "divprune", "visual_token_num": 2}
    answer = load(model, device="cpu").answer(clip, "What?", max_new_tokens=2, pruning=pruning)
    assert 0 < answer.visual_tokens < answer.tokens_before and len(decoded) <= 32 * BETWEEN_KEYS
