"""The ``--model_args`` of the models: checked before anything is loaded."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from llava.asking.processes import Processes
from llava.model.devices import check_attention, check_device, check_device_map, check_dtype
from llava.pruners import option_names
from llava.pruners.base import BUDGETS

PRUNING = ("pruner", *BUDGETS)


def refuse_unknown(given: Iterable[str], valid: Iterable[str], model: str) -> None:
    """Raise a TypeError that names the arguments which ``model`` does not have, and those that it has."""
    if unknown := sorted(set(given) - set(valid)):
        raise TypeError(f"{model} has no argument {', '.join(unknown)}; its arguments are {', '.join(sorted(valid))}")


def require_name(options: Mapping[str, Any]) -> None:
    """Raise a ValueError where a budget or an option of a pruner stands without ``pruner``.

    lmms-eval's results hold ``--model_args`` as they were given, and nothing else would say which pruner was meant.
    """
    given = [key for key in (*BUDGETS, *option_names()) if options.get(key) is not None]
    if given and options.get("pruner") is None:
        raise ValueError(f"{', '.join(given)} without a pruner: name it, as in pruner=cdpruner")


def positive(name: str, value: Any) -> int:
    """An argument that must be a whole number from 1 up, given as a number or as a text.

    Raises:
        ValueError: it is something else, such as lmms-eval's ``auto``.
    """
    if not str(value).isdecimal() or int(value) < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
    return int(value)


def check_loading(device: str, device_map: Any, dtype: Any, attn_implementation: str | None) -> None:
    """Hold what Transformers loads a model with against this machine.

    Raises:
        ValueError: an unknown device, dtype or attention, or one that is not possible here.
        ImportError: a package that the attention needs is not installed.
    """
    check_device(device)
    check_device_map(device_map)
    known = None if dtype in (None, "auto") else check_dtype("dtype", dtype)
    check_attention(attn_implementation, device.startswith("cpu"), known)


def place(processes: Processes, device_map: Any) -> str:
    """The device of this process.

    Raises:
        ValueError: a model spread over the devices that several processes share.
    """
    if device_map is not None and processes.count > 1:
        raise ValueError(f"device_map={device_map} spreads one model over the devices: start one process, not several")
    return processes.device or ("cuda" if torch.cuda.is_available() else "cpu")
