"""One call of a pruned model: what is known of it on its way, and what cannot be pruned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache

from llava import compat
from llava.pruning.shorten import Shortened
from llava.pruning.visual import Visual
from llava.selecting.record import PruneRecord

PROMPT = "pruned_prompt"  # on a cache: the shortened prompt in it; copies of the cache take it along
NEEDED = ("attention_mask", "position_ids", compat.CACHE)  # arguments through which a call is pruned


@dataclass
class Call:
    """A call of the model, on its way to its language model and back."""

    ids: Tensor | None  # (B, L) None where embeddings were given
    shown: frozenset[str]  # the modalities that it reads
    encoded: dict[str, list[Visual]]  # images or videos, by modality
    decided: bool = False  # whether it is known what the language model reads of it
    by_layers: int | None = None  # the positions that its first layer read
    read: int | None = None  # the positions that the language model returned
    due: int | None = None  # the positions that this leaves; None where ``prune_layer`` holds them against its own
    cache: Cache | None = None  # that is filled with them
    answered: bool = False  # whether the language model read them


@dataclass(frozen=True)
class Decision:
    """What was decided of a batch of prompts, for calls that read it again."""

    ids: Tensor  # (B, L)
    encoded: Mapping[str, list[Visual]]
    keep: Tensor  # (B, L)
    merged: Tensor | None  # (B, L, D) the embeddings of a pruner that merges


@dataclass
class Thread:
    """What a pruned model knows of the calls of one thread."""

    call: Call | None = None  # that is under way
    decision: Decision | None = None
    record: PruneRecord = field(default_factory=PruneRecord)
    encoding: bool = False
    checked: int = 0  # calls with images that were answered as decided
    asked: int = 0  # as many as those were when the model was called
    texts: str | Sequence[str] | None = None
    own_texts: bool = False  # whether this thread set them


def refuse_columns(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise NotImplementedError for what does not shorten with a prompt."""
    if isinstance(kwargs.get("logits_to_keep"), Tensor):
        raise NotImplementedError("columns as `logits_to_keep` do not shorten with the prompt: give a number")
    if kwargs.get("labels") is not None:
        raise NotImplementedError("`labels` do not shorten with the prompt: a pruned model does not compute a loss")


def prompt_of(arguments: Mapping[str, Any]) -> Shortened | None:
    """The shortened prompt in the cache of a call."""
    cache = arguments.get(compat.CACHE)
    return getattr(cache, PROMPT, None) if filled(cache) else None


def filled(cache: Cache | None) -> bool:
    """Whether a cache holds something already."""
    return cache is not None and cache.get_seq_length() > 0


def check_arguments(module: nn.Module, call: Call, given: Mapping[str, Any], shows: bool) -> None:
    """Raise RuntimeError where embeddings or cache did not come under the names that they are known by."""
    embeds, mask, cache = given.get("inputs_embeds"), given.get("attention_mask"), given.get(compat.CACHE)
    owner = type(module).__name__
    if embeds is None and not shows and prompt_of(given) is None:
        return  # nothing to prune, whatever it is called
    if embeds is None or (shows and embeds.shape[:2] != call.ids.shape):
        raise compat.not_pruned(f"{owner} was not given the embeddings of the prompts, one for each id")
    if cache is None and isinstance(mask, Tensor) and mask.ndim == 2 and mask.shape[1] > embeds.shape[1]:
        raise compat.not_pruned(f"{owner} was given a mask of {mask.shape[1]} columns and no cache that it is of")


def refuse_cache(cache: Any) -> None:
    """Raise NotImplementedError for a cache that a pruned prompt cannot fill."""
    if cache is None:
        return
    if cache.get_seq_length():
        raise NotImplementedError(
            "images behind a filled cache: chunked prefill and continued caches are not supported"
        )
    if cache.is_compileable:
        raise NotImplementedError(
            f"{type(cache).__name__}: a static cache is not supported with pruning; leave out cache_implementation"
        )


def real_tokens(mask: Tensor | None, ids: Tensor) -> Tensor:
    """Which tokens are no padding, (B, L) bool."""
    if mask is None:
        return torch.ones_like(ids, dtype=torch.bool)
    if not isinstance(mask, Tensor):
        raise compat.not_pruned(f"its language model was given a {type(mask).__name__} as its mask")
    if mask.ndim != 2:
        raise NotImplementedError(f"pruning needs an attention_mask (B, L), not one of shape {tuple(mask.shape)}")
    return mask.bool()
