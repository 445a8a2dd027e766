"""What ``load_pretrained_model`` is asked for: every option checked before the checkpoint is looked at."""

import inspect
from dataclasses import dataclass
from typing import Any

from llava.model.placement import Placement, placement
from llava.pruners import Pruner, option_names
from llava.selecting.options import NATIVE, PruningOptions, check_choice, names_of

ANYRES = ("native", "fixed")
PLACING = ("vision_dtype", "attn_implementation", "torch_dtype")
LOADING_OPTIONS = (*names_of(NATIVE), *PLACING)


@dataclass(frozen=True)
class Plan:
    """How a checkpoint is loaded: what is pruned and how, where the weights go, and how images are cut into tiles."""

    pruning: PruningOptions
    place: Placement
    anyres: str


def plan(
    load_8bit: bool = False,
    load_4bit: bool = False,
    device_map: Any = "auto",
    device: Any = "cuda",
    use_flash_attn: bool = False,
    *,
    pruner: str | Pruner | None = None,
    visual_token_num: int | None = None,
    keep_ratio: float | None = None,
    anyres: str = "native",
    dtype: Any = None,
    **options: Any,
) -> Plan:
    """Check the options of ``load_pretrained_model`` and say what they come to.

    Raises:
        TypeError: for an option that nobody reads, with the names of those that are read.
        ValueError: a value that is none of the valid ones, which it names, or two that exclude each other.
        ImportError: a package that an option needs is not installed.
    """
    unknown = sorted(set(options) - {*LOADING_OPTIONS, *option_names()})
    if unknown:
        named = ("model_path", "model_base", "model_name", *inspect.signature(plan).parameters)
        valid = ", ".join(sorted({*named, *LOADING_OPTIONS, *option_names()} - {"options"}))
        raise TypeError(f"load_pretrained_model got unknown options {', '.join(unknown)}; it takes {valid}")
    placing = {name: options.pop(name, None) for name in PLACING}
    check_choice("anyres", anyres, ANYRES)
    budget = {"visual_token_num": visual_token_num, "keep_ratio": keep_ratio}
    pruning = PruningOptions.of(NATIVE, pruner=pruner, **budget, **options)
    place = placement(device_map, device, dtype, placing, use_flash_attn, load_8bit, load_4bit)
    return Plan(pruning, place, anyres)
