"""Frames of video files, read with the optional dependency PyAV (``pip install -e '.[video]'``)."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


class VideoError(ValueError):
    """A video that cannot be read; the message names the file."""


@dataclass(frozen=True)
class Clip:
    """Frames of a video and where in it they stand.

    Args:
        frames: (T, H, W, 3) uint8, RGB.
        indices: the number of each frame in the video, from 0, ascending.
        total: frames of the whole video.
        fps: frames per second of the whole video; None where the file does not say.
    """

    frames: np.ndarray
    indices: list[int]
    total: int
    fps: float | None


def read_clip(path: str | Path, num_frames: int) -> Clip:
    """Read frames at even distances, the first and the last of the video among them.

    These are the frames that LLaVA-NeXT's evaluation takes for ``--for_get_frames_num``. A video of fewer frames
    than that comes whole, each frame once. Where the size of the picture changes midway, frames are scaled to that of
    the first.

    Args:
        path: a video file; of several video streams the first counts.
        num_frames: 1 or more; a single one is the first of the video.

    Raises:
        VideoError: no such file, one that cannot be decoded, or one without a video stream.
        ImportError: PyAV is not installed; names the extra.
        ValueError: a wrong ``num_frames``.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames must be 1 or more, not {num_frames}")
    av = import_av()
    path = Path(os.path.expanduser(path))
    if not path.is_file():
        raise VideoError(f"{path}: no such file")
    try:
        with _open(av, path) as container:
            if not container.streams.video:
                raise VideoError(f"{path}: holds no video stream")
            stream = container.streams.video[0]
            fps = None if stream.average_rate is None else float(stream.average_rate)
            announced = stream.frames or sum(packet.size > 0 for packet in container.demux(stream))
        total, frames = _decode(av, path, sample_indices(announced, num_frames))
        indices = sample_indices(total, num_frames)
        if total != announced:  # headers and packets may promise other frames than the stream holds
            _, frames = _decode(av, path, indices)
    except VideoError:
        raise
    except (av.error.FFmpegError, ArithmeticError, IndexError, OSError, ValueError) as error:
        raise VideoError(f"{path}: cannot be decoded: {getattr(error, 'strerror', None) or error}") from error
    if not frames:
        raise VideoError(f"{path}: holds no frame")
    return Clip(np.stack(frames), indices, total, fps)


def sample_indices(total: int, num_frames: int) -> list[int]:
    """The numbers of ``num_frames`` of ``total`` frames at even distances, rounded down; all where there are fewer."""
    if total <= num_frames:
        return list(range(total))
    return np.linspace(0, total - 1, num_frames, dtype=int).tolist()


def _decode(av: Any, path: Path, indices: Sequence[int]) -> tuple[int, list[np.ndarray]]:
    """How many frames a video has, and those of the given numbers; all are decoded, only those are kept."""
    wanted, frames, total = set(indices), [], 0
    with _open(av, path) as container:
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(video=0):
            if total == 0:
                size = {"width": frame.width, "height": frame.height}
            if total in wanted:
                frames.append(frame.to_ndarray(format="rgb24", **size))
            total += 1
    return total, frames


def _open(av: Any, path: Path) -> Any:
    """Open a video; a title or comment that is no UTF-8 does not matter to its frames."""
    return av.open(str(path), metadata_errors="ignore")


def import_av() -> Any:
    """PyAV, or an ImportError that names the extra."""
    try:
        import av
    except ImportError as error:
        raise ImportError("reading videos needs PyAV: pip install -e '.[video]', or pip install av") from error
    return av
