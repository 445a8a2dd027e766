"""Which implementation of a search runs: its Triton kernel on a GPU, or plain PyTorch where that is not possible."""

import logging
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial, wraps
from importlib import import_module
from threading import Lock
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

OLDEST_TRITON = (3, 2)
# Triton's compiler ends the process, where nothing can be caught, for an architecture that it does not know. These are
# NVIDIA's behind Hopper, with the version from which on every kernel compiles for them.
BEHIND_HOPPER = {(10, 0): (3, 4), (10, 3): (3, 6), (11, 0): (3, 9), (12, 0): (3, 4), (12, 1): (3, 6)}
HOPPER = (9, 0)
# Errors that torch raises, about memory or about the device: no kernel is to blame.
OF_THE_DEVICE = (torch.OutOfMemoryError, getattr(torch, "AcceleratorError", torch.OutOfMemoryError))

_lock = Lock()  # held while a program is compiled and launched for the first time
_loaded: dict[torch.device, ModuleType | None] = {}
_runs: dict[tuple, bool] = {}  # whether a program, once tried, runs


def on_cpu(tensor: Tensor) -> bool:
    """Whether a search takes the form that does little work and reads values back as it goes.

    Elsewhere every operation is launched and reading waits for the device: that form has few operations, reads nothing.
    """
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def one_operator(shape: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let ``torch.compile`` record a search as one operator, which decides when it runs how to search.

    Without ``torch.compile`` the search is called as it is, at no cost.

    Args:
        shape: from the search's arguments to empty tensors in the form of what it returns.
    """

    def decorate(search: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(search)
        def as_shaped(*args: Any) -> Any:
            found = search(*args)  # a kernel may return a part of what it wrote
            return tuple(part.contiguous() for part in found) if isinstance(found, tuple) else found.contiguous()

        operator = torch.library.custom_op(f"llava::{search.__name__}", as_shaped, mutates_args=())
        operator.register_fake(shape)

        @wraps(search)
        def call(*args: Any) -> Any:
            return operator(*args) if torch.compiler.is_compiling() else search(*args)

        return call

    return decorate


def compiled(search: str, matrix: Tensor, *rest: Any) -> Any:
    """What the kernel of a search finds, or None where plain PyTorch has to search.

    That is without a GPU or Triton, for more tokens than a kernel takes, with a Triton that would end the process, and
    where the kernel does not compile or launch for this size on this device. The last two are remembered and told once,
    and other kernels and sizes stay as they are. Safe to call from several threads.

    Args:
        search: name of the function in ``kernels``.
        matrix: (B, N, N) what is searched.
        rest: further arguments of that function.

    Raises:
        RuntimeError: what the device raises. Only a failure that leaves it in order is one of the kernel.
    """
    kernels = _kernels_on(matrix.device) if matrix.is_cuda else None
    if kernels is None or matrix.shape[1] > kernels.LARGEST_TILE:
        return None
    program = (search, matrix.device, kernels.built_for(search, matrix, *rest))
    launch = partial(getattr(kernels, search), matrix, *rest)
    with _current(matrix.device):
        if program not in _runs:
            with _lock:
                if program not in _runs:
                    found = _tried(launch, search, matrix)
                    _runs[program] = found is not None
                    return found
        return launch() if _runs[program] else None


def refused(triton: str, device: torch.device) -> str | None:
    """Why this version of Triton is not tried on a GPU, None when it is."""
    version = tuple(int(part) for part in re.findall(r"\d+", triton)[:2])
    if version < OLDEST_TRITON:
        return f"Triton {triton} is older than 3.2, its compiler may end the process"
    if torch.version.hip is not None:
        return None
    capability = torch.cuda.get_device_capability(device)
    if capability <= HOPPER or version >= BEHIND_HOPPER.get(capability, (float("inf"),)):
        return None
    name = "sm_{}{}".format(*capability)
    return f"Triton {triton} is not known to compile for {name}, and its compiler ends the process where it does not"


def _kernels_on(device: torch.device) -> ModuleType | None:
    """The kernels where Triton may be tried; the reason why not is told once, but for a Triton that is not there."""
    if device not in _loaded:
        with _lock:
            if device not in _loaded:
                _loaded[device] = _load(device)
    return _loaded[device]


def _load(device: torch.device) -> ModuleType | None:
    try:
        kernels = import_module("llava.pruners.search.kernels")
    except ModuleNotFoundError as error:
        if error.name == "triton":
            return None
        reason = str(error)
    except Exception as error:  # an installed Triton may fail in any way
        reason = f"Triton cannot be imported: {error}"
    else:
        reason = refused(kernels.triton.__version__, device)
        if reason is None:
            return kernels
    logger.warning("Plain PyTorch searches on %s, without Triton: %s", device, reason)
    return None


def _tried(launch: partial, search: str, matrix: Tensor) -> Any:
    """What the first launch returns; None, and a warning, where the program does not compile or launch.

    Nothing tells errors of the compiler from errors of the device by their class. But the latter stay: the device
    raises them again when it is waited for.
    """
    try:
        return launch()
    except OF_THE_DEVICE:
        raise
    except Exception as error:
        if _is_recording(matrix.device):  # then a device cannot be waited for
            raise
        _wait_for(matrix.device)
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        message = "The Triton kernel %s does not run for %d tokens on %s, plain PyTorch does in its place: %s"
        logger.warning(message, search, matrix.shape[1], matrix.device, reason)
        return None


def _current(device: torch.device) -> AbstractContextManager:
    """A context in which launches go to the device, which Triton does not read from the tensors."""
    return torch.cuda.device(device)


def _is_recording(device: torch.device) -> bool:
    """Whether launches are captured in a CUDA graph."""
    with _current(device):
        return torch.cuda.is_current_stream_capturing()


def _wait_for(device: torch.device) -> None:
    torch.cuda.synchronize(device)
