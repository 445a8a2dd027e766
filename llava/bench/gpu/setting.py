"""What the parts of one run share."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llava.bench.flops import SHAPES, Shape
from llava.provenance import PACKAGE

logger = logging.getLogger(__name__)

TESTS = PACKAGE.parent / "tests"
Row = dict[str, Any]
Rows = Iterator[Row]


class Wrong(Exception):
    """A part ran to its end, and what it found is not as it should be."""


@dataclass(frozen=True)
class Setting:
    """Where and on what the parts run.

    Args:
        device: cuda, or cpu to try the program itself.
        small: a tiny model and few repetitions, so that all parts take seconds and mean nothing.
        official_root: folder of the methods' own repositories, whose selections are timed, too.
    """

    device: str = "cuda"
    small: bool = False
    official_root: Path | None = None

    @property
    def where(self) -> torch.device:
        return torch.device(self.device)

    @property
    def memory_gb(self) -> float:
        """The device's memory; 16 where there is no GPU."""
        return torch.cuda.get_device_properties(0).total_memory / 2**30 if self.device == "cuda" else 16.0

    @property
    def shape(self) -> Shape:
        """Of the language model that is measured."""
        from llava.bench.models import SMALL

        return SMALL if self.small else SHAPES["7b"]

    def model(self) -> Any:
        """The LLaVA of random weights: a whole 7B in float16, or a tiny one in float32."""
        from llava.bench.models import SMALL_TEXT, SMALL_VISION, random_llava

        start, layers = time.monotonic(), self.shape.layers
        if self.small:
            model = random_llava(self.shape, layers, self.where, torch.float32, 0, SMALL_VISION, SMALL_TEXT)
        else:
            model = random_llava(self.shape, layers, self.where, torch.float16)
        logger.info("the model was built in %.1f s", time.monotonic() - start)
        return model

    @property
    def probes(self) -> tuple[int, int]:
        """Batch sizes by which the largest is estimated."""
        from llava.bench.serve import PROBES

        return (2, 4) if self.small else PROBES

    def reps(self, usual: int) -> int:
        return 1 if self.small else usual

    def kept(self, tokens: int) -> int:
        """The budget of every comparison: 64 of 576 tokens."""
        return max(1, tokens // 9)
