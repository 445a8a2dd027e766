"""The models behind lmms-eval, loaded with its ``--model_args``, which are checked before anything is loaded."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from llava.asking.llava import LlavaModel
from llava.asking.load import load_llava
from llava.asking.processes import Processes
from llava.asking.vlm import VlmModel, load_vlm
from llava.conversation import conv_templates
from llava.model.builder import load_pretrained_model
from llava.model.loading import LOADING_OPTIONS
from llava.pruners import option_names
from llava.pruners.base import BUDGETS
from llava.selecting.options import HOSTED, names_of

PRUNING = {"pruner", *BUDGETS}


def load_llava_pruned(pretrained: str, processes: Processes, **options: Any) -> LlavaModel:
    """A checkpoint in LLaVA's format.

    Args:
        pretrained: folder or hub id of the checkpoint.
        processes: where this process runs.
        options: ``model_base``, ``load_8bit``, ``load_4bit``, ``device_map``, ``conv_template`` (a conversation
            template, ``vicuna_v1`` if not given), and what else ``load_pretrained_model`` takes: ``pruner``,
            its budget and options, ``anyres``, ``dtype``, ``budget_scope``, ...

    Raises:
        TypeError, ValueError, FileNotFoundError: unusable options, or as ``load_pretrained_model``.
    """
    own = {"model_base", "load_8bit", "load_4bit", "device_map", "conv_template"}
    refuse_unknown(
        options, {*_keywords(load_pretrained_model), *LOADING_OPTIONS, *own, *option_names()}, "llava_pruned"
    )
    require_name(options)
    template, base = options.pop("conv_template", "vicuna_v1"), options.pop("model_base", None)
    if template not in conv_templates:
        valid = ", ".join(sorted(conv_templates))
        raise ValueError(f"conv_template {template!r} is unknown; valid are {valid}")
    return load_llava(pretrained, base, template, place(processes, options.get("device_map")), **options)


def load_vlm_pruned(pretrained: str, processes: Processes, **options: Any) -> VlmModel:
    """One of Transformers' own models; arguments as ``load_llava_pruned``, and options as ``load_vlm`` has them.

    Raises:
        TypeError, ValueError, FileNotFoundError, ImportError: as ``load_vlm``.
    """
    refuse_unknown(options, {*_keywords(load_vlm), *PRUNING, *names_of(HOSTED), *option_names()}, "vlm_pruned")
    require_name(options)
    return load_vlm(pretrained, place(processes, options.get("device_map")), **options)


def _keywords(function: Any) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]


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


def place(processes: Processes, device_map: Any) -> str | None:
    """The device of this process; None leaves it to the loader.

    Raises:
        ValueError: a model spread over the devices that several processes share.
    """
    if device_map is not None and processes.count > 1:
        raise ValueError(f"device_map={device_map} spreads one model over the devices: start one process, not several")
    return processes.device
