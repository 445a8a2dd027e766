"""What ``load_pretrained_model`` is asked for: every option checked before the checkpoint is looked at."""

import inspect
from typing import Any

from llava.flags.model import ANYRES
from llava.model.placement import Placement, placement
from llava.pruners import option_names
from llava.pruners.base import BUDGETS
from llava.selecting.options import NATIVE, PruningOptions, check_choice, names_of

PLACING = ("vision_dtype", "attn_implementation", "torch_dtype", "cuda_graphs")
LOADING_OPTIONS = (*names_of(NATIVE), *PLACING)


def plan(
    load_8bit: bool = False,
    load_4bit: bool = False,
    device_map: Any = "auto",
    device: Any = None,
    use_flash_attn: bool = False,
    *,
    anyres: str = "native",
    dtype: Any = None,
    **options: Any,
) -> tuple[PruningOptions, Placement]:
    """Check the options of ``load_pretrained_model`` and say what they come to: how to prune, and where weights go.

    Raises:
        TypeError: for an option that nobody reads, with the names of those that are read.
        ValueError: a value that is none of the valid ones, which it names, or two that exclude each other.
        ImportError: a package that an option needs is not installed.
    """
    known = {"pruner", *BUDGETS, *LOADING_OPTIONS, *option_names()}
    unknown = sorted(set(options) - known)
    if unknown:
        named = ("model_path", "model_base", "model_name", *inspect.signature(plan).parameters)
        valid = ", ".join(sorted({*named, *known} - {"options"}))
        raise TypeError(f"load_pretrained_model got unknown options {', '.join(unknown)}; it takes {valid}")
    placing = {name: options.pop(name, None) for name in PLACING}
    check_choice("anyres", anyres, ANYRES)
    pruning = PruningOptions.of(NATIVE, **options)
    return pruning, placement(device_map, device, dtype, placing, use_flash_attn, load_8bit, load_4bit)
