"""The least time that arithmetic and memory allow, by rates measured on the same machine in the same run."""

from dataclasses import dataclass
from functools import partial

import torch

from llava.bench.harness import measure

PRODUCT_SIDE = {"cpu": 2048, "cuda": 8192}
READ_BYTES = {"cpu": 2**28, "cuda": 2**32}
REPS = 3


@dataclass(frozen=True)
class Rates:
    """What a device reaches with nothing else to do.

    Args:
        flops: of a large square matrix product, per second.
        bytes: read by summing a large tensor, per second.
    """

    flops: float
    bytes: float

    def floor_ms(self, flops: float, read_bytes: float = 0.0) -> float:
        """Milliseconds of whichever takes longer, the operations or the reading."""
        return 1000 * max(flops / self.flops, read_bytes / self.bytes)


def measure_rates(device: torch.device, dtype: torch.dtype) -> Rates:
    """Time a matrix product in ``dtype`` and a sum."""
    side, size = PRODUCT_SIDE[device.type], READ_BYTES[device.type]
    factor = torch.randn(side, side, device=device).to(dtype)
    numbers = torch.ones(size // 4, device=device)
    timings = measure({"product": partial(torch.mm, factor, factor), "read": numbers.sum}, device, REPS)
    return Rates(
        flops=2 * side**3 / (timings["product"].steady_ms / 1000), bytes=size / (timings["read"].steady_ms / 1000)
    )
