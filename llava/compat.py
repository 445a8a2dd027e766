"""What Transformers calls things, read from its signatures; and the versions that were tested.

Transformers 5.24 calls ``past_key_values`` ``cache``. A hook sees what its caller wrote, so either name may come; what
is handed on has the name of the version that is installed. Nothing else in this package names the cache of another
model, so that the next change of a name is made here.
"""

import inspect
import logging
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache as once
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import GatedRepoError, HFValidationError
from packaging.version import Version
from torch import Tensor, nn
from transformers import Cache, LlamaModel, masking_utils

logger = logging.getLogger(__name__)

TESTED = ("5.17.0", "5.24.0")
"""The oldest and the newest Transformers that all tests passed with."""
PRUNES_FROM = "5.20"
"""The oldest Transformers whose own models ``llava.pruning`` prunes."""
CACHE_NAMES = ("cache", "past_key_values")


def _known(names: tuple[str, ...], function: Callable[..., Any]) -> str:
    """The first of ``names`` that a function takes; the last where it takes none of them."""
    parameters = inspect.signature(function).parameters
    return next((name for name in names if name in parameters), names[-1])


CACHE = _known(CACHE_NAMES, LlamaModel.forward)
"""The keyword argument that brings a forward its cache, and the field of an output that holds it."""
SHORTENED_BY = ("attention_mask", "position_ids", CACHE)
"""The arguments of a language model through which a prompt is shortened."""
_MASK_CACHE = _known(CACHE_NAMES, masking_utils.create_causal_mask)


def versions() -> str:
    """What is installed, for an error that may be due to it."""
    return f"transformers {transformers.__version__}, torch {torch.__version__}, Python {platform.python_version()}"


def parameters_of(forward: Callable[..., Any]) -> tuple[str, ...]:
    """The names of the parameters of a function, in their order."""
    return tuple(inspect.signature(forward).parameters)


def named(parameters: tuple[str, ...], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call by name, the cache under ``CACHE`` whatever its caller calls it."""
    given = {**dict(zip(parameters, args, strict=False)), **kwargs}
    caches = [given.pop(name) for name in CACHE_NAMES if name in given]
    if caches:  # of two, Transformers takes the one under the newer name
        given[CACHE] = next((cache for cache in caches if cache is not None), None)
    return given


def arguments_of(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call of a module by name, as they came where all have one."""
    return named(parameters_of(module.forward), args, kwargs) if args else kwargs


def cache_of(arguments: Mapping[str, Any]) -> Cache | None:
    """The cache among the keyword arguments of a call, under whichever name."""
    return next((arguments[name] for name in CACHE_NAMES if arguments.get(name) is not None), None)


def cache_argument(value: Cache | None) -> dict[str, Cache | None]:
    """The keyword argument that hands a cache to one of Transformers' models."""
    return {CACHE: value}


def cache_in(output: Any) -> Cache | None:
    """The cache in the output of one of Transformers' models."""
    return getattr(output, CACHE, None)


def create_mask(window: int | None, cache: Cache | None, **arguments: Any) -> Any:
    """Make the mask of a decoder layer, as ``transformers.masking_utils`` makes it; ``window`` None sees all tokens."""
    sliding = window is not None
    make: Any = masking_utils.create_sliding_window_causal_mask if sliding else masking_utils.create_causal_mask
    return make(**arguments, **{_MASK_CACHE: cache})


def positions_in(output: Any) -> int | None:
    """How many positions L the last hidden states (B, L, D) have that the body of a language model returned.

    None where there are none to be found.
    """
    states = output[0] if isinstance(output, tuple) and output else getattr(output, "last_hidden_state", None)
    return states.shape[1] if isinstance(states, Tensor) and states.ndim == 3 else None


def refuse_unknown(forward: Callable[..., Any], owner: str, needed: tuple[str, ...]) -> None:
    """Raise RuntimeError unless a forward takes every argument in ``needed`` by its name.

    A forward that takes a cache or embeddings under another name would leave what is handed to it alone, and answer
    without pruning.
    """
    parameters = parameters_of(forward)
    missing = [name for name in needed if name not in parameters]
    if missing:
        raise not_pruned(f"{owner}.forward takes no {' and no '.join(missing)}, through which pruning reaches it")


def not_pruned(why: str) -> RuntimeError:
    """The error of a call that would be answered without the pruning that was asked for."""
    return RuntimeError(
        f"this call cannot be pruned as asked, so it is not answered: {why}. Installed: {versions()}; tested with "
        f"transformers {TESTED[0]} to {TESTED[1]}"
    )


def is_hub_id(name: str) -> bool:
    """Whether a name has the form of a hub id, owner/name; a folder may have it, too."""
    return name.count("/") == 1 and not name.startswith(("/", ".", "~"))


@contextmanager
def from_hub(name: str) -> Iterator[None]:
    """Let the error of what is neither a folder nor to be had from the hub end with the command that would fetch it.

    Raises:
        FileNotFoundError: in place of the hub's many errors.
    """
    try:
        yield
    except (OSError, HFValidationError) as error:
        of_machine = isinstance(error, OSError) and error.errno is not None  # a full disk, a file that is not ours
        if of_machine or Path(name).is_dir() or not is_hub_id(name):
            raise
        said = " ".join(str(error).split())
        if isinstance(error, HFValidationError):
            raise FileNotFoundError(f"{name!r}: no such folder, and no hub id: {said}") from error
        terms = isinstance(error, GatedRepoError) or "gated repo" in said.lower()
        how = "accept its terms on the hub, then: hf auth login && " if terms else "where there is a network: "
        text = f"{name!r}: no such folder, and the hub does not give it ({said}); {how}hf download {name}"
        raise FileNotFoundError(text) from error


@once
def warn_if_newer() -> None:
    """Warn, once a process, of a Transformers newer than any that was tested."""
    installed = Version(transformers.__version__)
    if installed > Version(TESTED[1]):
        logger.warning(
            "transformers %s is newer than what was tested, %s to %s: a call that cannot be pruned raises an error",
            installed, *TESTED,
        )  # fmt: skip
