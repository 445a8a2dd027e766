"""Frames of video files, read with the optional dependency PyAV (``pip install -e '.[video]'``)."""

import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SEEKABLE_FORMATS = ("mov", "matroska")
"""Containers that say when each frame is shown, and have an index of the key frames."""
SEEKABLE_CODECS = ("h264", "hevc", "mpeg4", "mjpeg", "vp9", "av1", "libdav1d")
"""Codecs of whose packets each shows one frame."""
Stamps = tuple[list[int], list[int]]
"""When every frame is shown and when every key frame is, ascending, in the stream's unit of time."""


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


def sample_indices(total: int, num_frames: int) -> list[int]:
    """The numbers of ``num_frames`` of ``total`` frames at even distances, rounded down; all where there are fewer."""
    if total <= num_frames:
        return list(range(total))
    return np.linspace(0, total - 1, num_frames, dtype=int).tolist()


def read_clip(path: str | Path, num_frames: int, places: Callable[[int, int], Iterable[int]] = sample_indices) -> Clip:
    """Read frames at even distances, the first and the last of the video among them.

    These are the frames that LLaVA-NeXT's evaluation takes for ``--for_get_frames_num``. A video of fewer frames
    than that comes whole, each frame once. Where the size of the picture changes midway, frames are scaled to that of
    the first. Of a file whose packets say where each frame is, no more is decoded than these frames and those they
    build upon; of any other every frame is, one at a time, so that memory does not grow with the length of a video.

    Args:
        path: a video file; of several video streams the first counts.
        num_frames: 1 or more; a single one is the first of the video.
        places: which frames are read, from how many there are and ``num_frames``: their numbers, ascending from 0.

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
        announced, fps, stamps = _survey(av, path)
        total, indices = announced, [*map(int, places(announced, num_frames))]
        frames = _found(av, path, stamps, indices) if stamps else None
        if frames is None:
            total, frames = _decode(av, path, indices)
            if total != announced:  # headers and packets may promise other frames than the stream holds
                indices = [*map(int, places(total, num_frames))]
                _, frames = _decode(av, path, indices)
    except VideoError:
        raise
    except (av.error.FFmpegError, ArithmeticError, IndexError, OSError, ValueError) as error:
        raise VideoError(f"{path}: cannot be decoded: {getattr(error, 'strerror', None) or error}") from error
    if not frames:
        raise VideoError(f"{path}: holds no frame")
    return Clip(np.stack(frames), indices, total, fps)


def _survey(av: Any, path: Path) -> tuple[int, float | None, Stamps | None]:
    """How many frames a video announces, how many a second, and when each is shown; None where that is not sure."""
    with _open(av, path) as container:
        if not container.streams.video:
            raise VideoError(f"{path}: holds no video stream")
        stream = container.streams.video[0]
        fps = None if stream.average_rate is None else float(stream.average_rate)
        sure = stream.codec_context.name in SEEKABLE_CODECS and any(
            name in container.format.name for name in SEEKABLE_FORMATS
        )
        if stream.frames and not sure:
            return stream.frames, fps, None
        shown, keys = [], []
        for packet in container.demux(stream):
            if packet.size:
                sure &= packet.pts is not None and not (packet.is_corrupt or packet.is_discard)
                shown.append(packet.pts)
                if packet.is_keyframe:
                    keys.append(packet.pts)
        announced = stream.frames or len(shown)
        sure &= len(set(shown)) == announced == len(shown)
        return announced, fps, (sorted(shown), sorted(keys)) if sure and keys else None


def _found(av: Any, path: Path, stamps: Stamps, indices: Sequence[int]) -> list[np.ndarray] | None:
    """The frames of the given numbers, each decoded from the key frame before it; None where one is not found."""
    shown, keys = stamps
    frames, at, size = [], None, {}
    try:
        with _open(av, path) as container:
            stream = container.streams.video[0]
            for wanted in (shown[index] for index in indices):
                before = bisect_right(keys, wanted)
                if before == 0:
                    return None
                if at is None or keys[before - 1] > at:
                    container.seek(keys[before - 1], stream=stream)
                    decoding = container.decode(stream)
                frame = next((frame for frame in decoding if frame.pts is None or frame.pts >= wanted), None)
                if frame is None or frame.pts != wanted:
                    return None
                size, at = size or {"width": frame.width, "height": frame.height}, wanted
                frames.append(frame.to_ndarray(format="rgb24", **size))
    except av.error.FFmpegError:  # decoding all of it will tell what is wrong, if anything is
        return None
    return frames


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
