"""An image or video as a language model reads it, what a pruner chooses from at a time, and how much of it stays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from llava.pruners import Pruner
from llava.pruners.cues import INSIDE_CUES


@dataclass(frozen=True)
class Part:
    """A stretch of an image's tokens that is chosen from by itself: a tile, a frame, or a grid of tiles."""

    positions: Tensor  # (P,) int64 on the CPU, ascending, in the image's sequence
    tiles: int = 1  # how many tiles' budgets it has
    group: int = 0  # parts of one image and group share min-max statistics
    grid: tuple[int, int] | None = None  # rows and columns, where the tokens stand in a grid that is not square

    def of(self, cue: Tensor) -> Tensor:
        """The part of a cue of the whole image, (L, ...) -> (P, ...); a view where its tokens are neighbours."""
        first, count = int(self.positions[0]) if len(self.positions) else 0, len(self.positions)
        if count and int(self.positions[-1]) - first + 1 == count:
            return cue[first : first + count]
        return cue[self.positions.to(cue.device)]


@dataclass(frozen=True)
class Visual:
    """One image or video: its L tokens in the order in which the language model reads them, and what is known of them.

    Args:
        length: L.
        parts: what is chosen from by itself when nothing larger is.
        cues: (L,) or (L, C) of every token, by the names that ``VisualCues`` has, zero at newline tokens; what is
            unknown, or means nothing for this image, is absent. A token that stands for several patches has the mean
            of their cues.
        newline: (L,) bool on the CPU, where the learned newline token stands; None where there is none.
        texts: what is known of the question, by the names that ``VisualCues`` has: (M, D), (M, L, E); absent without
            one.
    """

    length: int
    parts: Sequence[Part]
    cues: Mapping[str, Tensor] = field(default_factory=dict)
    newline: Tensor | None = None
    texts: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def tiles(self) -> int:
        """Number of tiles or frames."""
        return sum(part.tiles for part in self.parts)


def parts_of(pruner: Pruner, visual: Visual, scope: str | None) -> Sequence[Part]:
    """What ``pruner`` chooses from at a time.

    Args:
        scope: "tile", the parts as they are; "image", all of them as one; None is what the pruner takes an image of
            several tiles for.
    """
    if (scope or (pruner.scope if visual.tiles > 1 else "tile")) == "tile":
        return visual.parts
    if judges_newlines(pruner):
        return [Part(torch.arange(visual.length), visual.tiles)]
    grid = visual.parts[0].grid if len(visual.parts) == 1 else None
    return [Part(torch.cat([part.positions for part in visual.parts]).sort().values, visual.tiles, grid=grid)]


def budget_of(pruner: Pruner, part: Part) -> int:
    """How many tokens of a part are kept: each of its tiles has the pruner's number, a share is of what is there."""
    if pruner.visual_token_num is None:
        return pruner.budget(len(part.positions))
    return min(len(part.positions), pruner.visual_token_num * part.tiles)


def kept_of(pruner: Pruner, visual: Visual, scope: str | None) -> int:
    """How many tokens of an image are kept: the budgets of its parts, and the newline tokens that are in none."""
    dropped = (len(part.positions) - budget_of(pruner, part) for part in parts_of(pruner, visual, scope))
    return visual.length - sum(dropped)


def judges_newlines(pruner: Pruner) -> bool:
    """Whether newline tokens are candidates: the language model knows them, the encoder has no cue of them."""
    return pruner.newlines and bool(pruner.needs) and pruner.needs <= {"embeds", *INSIDE_CUES} and not pruner.merges
