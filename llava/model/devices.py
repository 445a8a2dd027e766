"""Device, dtype and attention as users name them: checked against this machine before anything is loaded."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import is_flash_attn_2_available

from llava.flags.model import ATTENTION
from llava.selecting.options import check_choice

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
DTYPES |= {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32, "half": torch.float16}
FLASH = "flash_attention_2"
SPREAD = ("auto", "balanced", "balanced_low_0", "sequential")


def check_device(device: Any, name: str = "device") -> torch.device:
    """The device of that name.

    Raises:
        ValueError: it is no device, or this machine has none of that kind or number; names those that there are.
    """
    try:
        if device is None or isinstance(device, bool):
            raise TypeError(device)
        found = torch.device(device)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{name} {str(device)!r} is no device; valid here: {_here()}") from error
    if found.index is not None and found.index >= _count(found.type) or not _count(found.type):
        raise ValueError(f"{name} {str(device)!r}: torch sees no such device; valid here: {_here()}")
    return found


def check_device_map(device_map: Any) -> None:
    """Check a word of accelerate's, a device, or a mapping from modules to devices; ValueError as ``check_device``."""
    if device_map is None or (isinstance(device_map, str) and device_map in SPREAD):
        return
    if isinstance(device_map, Mapping):
        for place in device_map.values():
            if place != "disk":
                check_device(place, "device_map")
    elif isinstance(device_map, str) and not device_map.startswith(("cpu", "cuda", "mps", "xpu")):
        raise ValueError(f"device_map {device_map!r} is neither one of {', '.join(SPREAD)} nor one of {_here()}")
    else:
        check_device(device_map, "device_map")


def check_dtype(name: str, value: torch.dtype | str | None) -> torch.dtype | None:
    """The dtype of that name; None stays None.

    Raises:
        ValueError: it is none of floating-point numbers; names the valid ones.
    """
    if isinstance(value, torch.dtype) and value in DTYPES.values():
        return value
    plain = value.removeprefix("torch.") if isinstance(value, str) else value
    if plain is not None and not (isinstance(plain, str) and plain in DTYPES):
        raise ValueError(f"{name} {str(value)!r} is not one of {', '.join(DTYPES)}")
    return None if plain is None else DTYPES[plain]


def check_attention(name: str | None, on_cpu: bool, dtype: torch.dtype | None) -> None:
    """Check that this way to compute attention is there, for this dtype and on this kind of device.

    Raises:
        ValueError: unknown, or not possible there.
        ImportError: it needs a package that is not installed.
    """
    if name is None or name in ("sdpa", "eager"):
        return
    check_choice("attn_implementation", name, tuple(dict.fromkeys((*ATTENTION, *ALL_ATTENTION_FUNCTIONS.keys()))))
    if name != FLASH:
        return
    if on_cpu or not torch.cuda.is_available():
        raise ValueError(f"attn_implementation {FLASH} needs a GPU; valid without one: sdpa, eager")
    if dtype == torch.float32:
        raise ValueError(f"attn_implementation {FLASH} computes in float16 or bfloat16, not in float32; sdpa does")
    if not is_flash_attn_2_available():
        raise ImportError(
            f"attn_implementation {FLASH} needs the package flash-attn: pip install '.[flash]' in a clone"
        )


def check_bits(load_8bit: Any, load_4bit: Any) -> None:
    """Check that a model can be loaded in few bits.

    Raises:
        ValueError: 8 and 4 bits at once.
        ImportError: bitsandbytes is not installed.
    """
    for name, value in (("load_8bit", load_8bit), ("load_4bit", load_4bit)):
        if value is not None and value not in (True, False):
            raise ValueError(f"{name} must be True or False, not {value!r}")
    if load_8bit and load_4bit:
        raise ValueError("load_8bit and load_4bit exclude each other: choose one")
    if (load_8bit or load_4bit) and find_spec("bitsandbytes") is None:
        raise ImportError("load_8bit and load_4bit need bitsandbytes: pip install '.[quant]' in a clone")


def _count(kind: str) -> int:
    """How many devices of that kind there are."""
    if kind == "cpu":
        return 1
    if kind == "mps":
        return int(torch.backends.mps.is_available())
    module = getattr(torch, kind, None)  # cuda, xpu and whatever else a build of torch has
    available = getattr(module, "is_available", None)
    return module.device_count() if available is not None and available() else 0


def _here() -> str:
    """The devices of this machine, as they are named."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = ["cpu", *(["cuda"] if gpus else []), *(f"cuda:{number}" for number in range(gpus))]
    return ", ".join([*names, *(["mps"] if _count("mps") else [])])
