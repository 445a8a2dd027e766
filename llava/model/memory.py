"""What answering takes of memory."""

import re
import sys
from pathlib import Path
from typing import Any

import torch


def kv_mb(model: Any, tokens: float) -> float:
    """Keys and values that the language model holds of so many tokens, each read by all of its layers, in MiB."""
    config = model.config
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    numbers = 2 * config.num_hidden_layers * config.num_key_value_heads * width
    return numbers * tokens * model.dtype.itemsize / 2**20


def peak_mb(device: torch.device) -> float:
    """The most that was held at once since the process began, weights included, in MiB.

    On CUDA what the allocator has given out on the device; elsewhere the whole process, Python and libraries included.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says on Linux may be the peak of the process that started this one
        (kibibytes,) = re.findall(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE)
        return int(kibibytes) / 2**10
    import resource  # Windows has none

    unit = 1 if sys.platform == "darwin" else 2**10  # bytes there, kibibytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
