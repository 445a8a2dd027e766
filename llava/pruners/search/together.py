"""How the programs of one Triton launch share a tile and wait for each other."""

import torch
import triton
import triton.language as tl

FIRST_TOGETHER = (3, 4)  # the Triton from which on a launch can ask that all its programs run at the same time
WARPS_OF_ANY_PROGRAM = 8  # 8 warps of 255 registers a thread fill the registers of a multiprocessor


def multiprocessors(device: torch.device) -> int:
    """How many the device has; none where a launch cannot ask that all its programs run at the same time."""
    if device.type != "cuda" or torch.version.hip is not None or not _can_ask():
        return 0
    return torch.cuda.get_device_properties(device).multi_processor_count


def launch_options(waits: bool) -> dict[str, bool]:
    """What a launch asks for whose programs wait for each other; a Triton that cannot be asked has one such program."""
    return {"launch_cooperative_grid": True} if waits and _can_ask() else {}


def _can_ask() -> bool:
    return tuple(int(part) for part in triton.__version__.split(".")[:2]) >= FIRST_TOGETHER


def run_together(programs: int, warps: int, processors: int) -> bool:
    """Whether so many programs run at the same time, whatever registers they need, so that they may wait."""
    return programs <= processors * max(1, WARPS_OF_ANY_PROGRAM // warps)


@triton.jit
def arrive(arrived):
    """Count this program in. Programs that wait for it see what it stored before."""
    tl.debug_barrier()  # of all its threads
    tl.atomic_add(arrived, 1, sem="release")


@triton.jit
def wait_for(arrived, count):
    """Until ``count`` programs have arrived; never ends where some of them only start when this one is through."""
    while tl.atomic_add(arrived, 0, sem="acquire") < count:
        pass
    tl.debug_barrier()
