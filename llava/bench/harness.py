"""How time, operations and memory are measured."""

import statistics
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from llava.utils import is_noisy

Sample = tuple[float, float, float | None]  # milliseconds: CPU, wall, GPU where there is one
MATRIX_PRODUCTS = {"mm": 0, "bmm": 0, "mv": 0, "addmm": 1, "baddbmm": 1, "addmv": 1}  # where the left operand stands


@dataclass(frozen=True)
class Timing:
    """What repeated calls took, in milliseconds.

    Args:
        cpu_ms: median CPU time, of the calling thread alone when there is one thread, else of the process.
        wall_ms: median time until the result is there, the device synchronised.
        min_ms: shortest such time.
        n: repetitions.
        noisy: whether something else was in the way: the wall time's median is more than 1.3 times its minimum or,
            with one thread on a CPU, the CPU time.
        gpu_ms: median time between two CUDA events around the call, None on a CPU.
    """

    cpu_ms: float
    wall_ms: float
    min_ms: float
    n: int
    noisy: bool
    gpu_ms: float | None = None

    @property
    def steady_ms(self) -> float:
        """The time to compare: CPU time where one thread on a CPU did it all, which other programs hardly change."""
        return self.cpu_ms if self.gpu_ms is None and torch.get_num_threads() == 1 else self.wall_ms


def measure(variants: Mapping[str, Callable[[], Any]], device: torch.device, reps: int) -> dict[str, Timing]:
    """Time every variant ``reps`` times in turn, after one call of each that does not count."""
    for call in variants.values():
        call()
    samples: dict[str, list[Sample]] = {name: [] for name in variants}
    for _ in range(reps):
        for name, call in variants.items():
            samples[name].append(sample(call, device))
    return {name: summarize(taken) for name, taken in samples.items()}


def sample(call: Callable[[], Any], device: torch.device) -> Sample:
    """Time one call."""
    cpu_clock = time.thread_time if torch.get_num_threads() == 1 else time.process_time
    events = None
    if device.type == "cuda":
        events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        torch.cuda.synchronize(device)
    wall, cpu = time.perf_counter(), cpu_clock()
    if events:
        events[0].record()
    call()
    if events:
        events[1].record()
        torch.cuda.synchronize(device)
    cpu, wall = cpu_clock() - cpu, time.perf_counter() - wall
    return 1000 * cpu, 1000 * wall, events[0].elapsed_time(events[1]) if events else None


def summarize(samples: Sequence[Sample]) -> Timing:
    """The medians of repeated calls."""
    cpu, wall, gpu = zip(*samples, strict=True)
    on_gpu = gpu[0] is not None
    cpu_ms, wall_ms = statistics.median(cpu), statistics.median(wall)
    waited = not on_gpu and torch.get_num_threads() == 1 and is_noisy(wall, cpu_ms)
    return Timing(
        cpu_ms=cpu_ms,
        wall_ms=wall_ms,
        min_ms=min(wall),
        n=len(samples),
        noisy=waited or is_noisy(wall),
        gpu_ms=statistics.median(gpu) if on_gpu else None,
    )


@dataclass
class Counter(TorchDispatchMode):
    """Counts what a call dispatches while it runs under this mode.

    Args:
        width: matrix products over at least this many numbers count into ``gram_flops``.

    Attributes:
        ops: operations that compute something; views do not.
        gram_flops: multiplications and additions of those matrix products.
        peak_bytes: largest total of tensors made by the call and alive at once. What a kernel allocates and frees
            within itself is not seen.
    """

    width: int = 0
    ops: int = 0
    gram_flops: int = 0
    peak_bytes: int = 0
    _live: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if not (func.is_view or func is torch.ops.aten._unsafe_view.default):
            self.ops += 1
            self.gram_flops += self._product_flops(func, args, result)
            known = {_storage_id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
            for leaf in tree_leaves(result):
                if isinstance(leaf, Tensor) and _storage_id(leaf) not in known:
                    self._watch(leaf.untyped_storage())
        return result

    def _product_flops(self, func, args, result) -> int:
        operand = MATRIX_PRODUCTS.get(func.overloadpacket.__name__)
        if operand is None or args[operand].shape[-1] < self.width:
            return 0
        return 2 * result.numel() * args[operand].shape[-1]

    def _watch(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        self._live[key] = storage.nbytes()
        weakref.finalize(storage, self._live.pop, key, None)
        self.peak_bytes = max(self.peak_bytes, sum(self._live.values()))


def _storage_id(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def extra_peak_mb(call: Callable[[], Any], device: torch.device) -> float:
    """Memory that one call takes at most beyond what is there before it, in MiB.

    On CUDA what the allocator reports, elsewhere ``Counter.peak_bytes``.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    with Counter() as counter:
        call()
    return counter.peak_bytes / 2**20


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Let torch compute with that many threads, and afterwards with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
