"""Questions as one turn of a chat, for the processors of Transformers' models."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from transformers.video_utils import VideoMetadata, load_video

from llava.asking.losses import without_placeholders
from llava.asking.questions import Question
from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.mm_utils import to_rgb
from llava.video import Clip, read_clip


@dataclass(frozen=True)
class Video:
    """Frames (T, H, W, 3) of 8 bits, and where in the video they were."""

    frames: np.ndarray
    metadata: VideoMetadata


@dataclass(frozen=True)
class Turn:
    """What the user says: the parts of a chat message, and the images and videos in their order."""

    content: list[dict[str, str]]
    visuals: list[Image.Image | Video]


def conversation(question: Question, max_frames: int) -> Turn:
    """Read what a question shows; videos stand in front, images where its ``<image>`` stand or in front.

    Args:
        max_frames: frames read of a video, evenly spread; fewer where it has fewer.

    Raises:
        ValueError: something that is neither image nor video; names the question.
    """
    visuals = [_visual(visual, question.name, max_frames) for visual in question.load_visuals()]
    videos = [visual for visual in visuals if isinstance(visual, Video)]
    images = [visual for visual in visuals if not isinstance(visual, Video)]
    pieces = question.text.split(DEFAULT_IMAGE_TOKEN)
    if len(pieces) != len(images) + 1:
        pieces = [""] * len(images) + [without_placeholders(question.text)[0]]
    content = [{"type": "video"}] * len(videos)
    for number, piece in enumerate(pieces):
        content += [{"type": "image"}] if number else []
        content += [{"type": "text", "text": piece.strip()}] if piece.strip() else []
    return Turn(content, [*videos, *images])


def rendered(processor: Any, turn: Turn, answer: str | None = None) -> str:
    """The text of a turn by the processor's chat template, waiting for the answer or with it."""
    messages = [{"role": "user", "content": turn.content}]
    if answer is None:
        return processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return processor.apply_chat_template(messages, tokenize=False).rstrip()


def separated(turns: Sequence[Turn]) -> tuple[list[Image.Image], list[np.ndarray], list[VideoMetadata]]:
    """The images of all turns, the frames of their videos, and the videos' metadata, as processors take them."""
    visuals = [visual for turn in turns for visual in turn.visuals]
    videos = [visual for visual in visuals if isinstance(visual, Video)]
    images = [visual for visual in visuals if not isinstance(visual, Video)]
    return images, [video.frames for video in videos], [video.metadata for video in videos]


def _visual(visual: Any, name: str, max_frames: int) -> Image.Image | Video:
    if isinstance(visual, Image.Image):
        return to_rgb(visual)
    if isinstance(visual, Video):
        return visual
    if isinstance(visual, str) and visual.startswith(("http://", "https://")):
        places = lambda metadata, **_: _evenly(metadata.total_num_frames, max_frames)  # noqa: E731
        read: Any = load_video  # which takes a path or an address, too, and is not declared to
        return Video(*read(visual, num_frames=None, sample_indices_fn=places))
    if isinstance(visual, str):
        return of_clip(read_clip(visual, max_frames, _evenly))
    if isinstance(visual, list | np.ndarray) and len(visual):
        chosen = _evenly(len(visual), max_frames)
        frames = np.stack([np.asarray(visual[index]) for index in chosen])
        metadata = VideoMetadata(total_num_frames=len(visual), fps=1.0, frames_indices=chosen.tolist())
        return Video(frames, metadata)
    raise ValueError(f"{name} shows {type(visual).__name__}: vlm_pruned reads images, paths of videos, frames")


def of_clip(clip: Clip) -> Video:
    """The frames of a video file as processors take them."""
    _, height, width, _ = clip.frames.shape
    duration = clip.total / clip.fps if clip.fps else None
    size = {"height": height, "width": width}
    return Video(
        clip.frames, VideoMetadata(clip.total, clip.fps, duration=duration, frames_indices=clip.indices, **size)
    )


def _evenly(total: int, max_frames: int) -> np.ndarray:
    """Indices of ``max_frames`` frames of ``total``, or of all, from the first to the last."""
    return np.linspace(0, total - 1, min(max_frames, total)).round().astype(int)
