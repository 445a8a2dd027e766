"""Tiles and frames of one length, one behind the other."""

import torch
from torch import Tensor

from llava.selecting.parts import Part, Visual


def frame_visuals(cues: dict[str, Tensor], frames: int, newline: bool = False) -> list[Visual]:
    """Return the V videos of one call of the encoder, or its images, which are videos of one frame.

    Each frame is chosen from by itself; the frames of a video share statistics.

    Args:
        cues: (V * F, N) or (V * F, N, C) of every token of every frame, by the names that ``Visual`` has for them;
            "features" among them.
        frames: F, how many frames each video has.
        newline: whether a newline token ends each video.
    """
    tokens = cues["features"].shape[1]
    places = torch.arange(frames * tokens + newline)
    parts = [Part(positions) for positions in places[: frames * tokens].split(tokens)]
    marks = places == frames * tokens if newline else None
    joined = {name: _joined(cue, frames, newline) for name, cue in cues.items()}
    return [
        Visual(len(places), parts, dict(zip(joined, video, strict=True)), marks)
        for video in zip(*joined.values(), strict=True)
    ]


def _joined(cue: Tensor, frames: int, newline: bool) -> Tensor:
    """Lay frames (V * F, N, ...) behind one another, (V, F * N, ...), with zeros for a newline token."""
    videos = cue.unflatten(0, (-1, frames)).flatten(1, 2)
    return torch.cat([videos, torch.zeros_like(videos[:, :1])], dim=1) if newline else videos
