"""One call of a pruned model: what is known of it on its way, and what cannot be pruned."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache

from llava import compat
from llava.pruning.families import Family
from llava.pruning.shorten import Shortened
from llava.selecting.options import PruningOptions
from llava.selecting.parts import Visual
from llava.selecting.record import PruneRecord

PROMPT = "pruned_prompt"  # on a cache: the shortened prompt in it; copies of the cache take it along
AS_MODULE = "as a module (one that was compiled before it was pruned has to be compiled anew)"


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

    def answer(self, owner: str, read: int | None, counted: bool) -> None:
        """Note the positions that a language model returned; RuntimeError where they are not those that were due.

        Args:
            owner: class of the language model.
            read: the positions; None where none were found in its output.
            counted: whether ``by_layers`` is known.
        """
        if not self.decided:
            raise compat.not_pruned(f"{owner} did not choose inside, at the layer that it was to choose at")
        self.read, self.answered = read, read is not None
        if self.due is None:
            return
        if counted and self.by_layers != self.due:
            raise compat.not_pruned(f"{self.by_layers} positions came to the first layer where {self.due} were due")
        cached = read if self.cache is None else self.cache.get_seq_length()
        if (read, cached) != (self.due, self.due):
            raise compat.not_pruned(
                f"the language model read {read} positions and cached {cached} where {self.due} were to be left"
            )


@dataclass
class ThreadState:
    """What a pruned model knows of the calls of one thread."""

    call: Call | None = None  # that is under way
    options: PruningOptions | None = None  # that it prunes with; None outside of ``generate``
    record: PruneRecord = field(default_factory=PruneRecord)
    encoding: bool = False
    checked: int = 0  # calls with images that were answered as decided
    asked: int = 0  # as many as those were when the model was called


def shows_visuals(family: Family, call: Call, continued: bool) -> bool:
    """Whether a call reads visual tokens; RuntimeError where it does, and its encoder was never seen at work.

    ``continued`` says that the prompt is in the cache already: what is shown then is behind it.
    """
    base, known = type(family.base).__name__, call.shown | call.encoded.keys()
    if family.unheard.value:
        raise compat.not_pruned(f"{base} encoded images, and not by get_image_features or get_video_features")
    if known and call.ids is None:
        raise compat.not_pruned(f"{base} was not given the ids of the prompts beside their images")
    missing = call.shown - call.encoded.keys()
    if missing and not continued and family.visual_columns(call.ids, missing).any():
        methods = " and ".join(f"get_{modality}_features" for modality in sorted(missing))
        raise compat.not_pruned(f"{base} did not encode its images by {methods}")
    return bool(known) and bool(family.visual_columns(call.ids, call.encoded).any())


def refuse_columns(given: Mapping[str, Any]) -> None:
    """Raise NotImplementedError for arguments that do not shorten with a prompt."""
    if isinstance(given.get("logits_to_keep"), Tensor):
        raise NotImplementedError("columns as `logits_to_keep` do not shorten with the prompt: give a number")
    if given.get("labels") is not None:
        raise NotImplementedError("`labels` do not shorten with the prompt: a pruned model does not compute a loss")


def prompt_of(arguments: Mapping[str, Any]) -> Shortened | None:
    """The shortened prompt in the cache of a call."""
    cache = arguments.get(compat.CACHE)
    return getattr(cache, PROMPT, None) if filled(cache) else None


def filled(cache: Cache | None) -> bool:
    """Whether a cache holds something already."""
    return cache is not None and cache.get_seq_length() > 0


def continued(prompt: Shortened, given: Mapping[str, Any], compact: bool) -> dict[str, Any]:
    """The mask and positions of tokens behind a pruned prompt, from what the language model was given.

    Raises:
        NotImplementedError: the prompt's cache was handed to another ``generate``.
    """
    new, past = given["inputs_embeds"].shape[1], given[compat.CACHE].get_seq_length()
    unpruned = past + new + prompt.length - prompt.width
    mask = given.get("attention_mask")
    if mask is not None and mask.shape[-1] != unpruned:
        raise NotImplementedError(
            f"an attention_mask of {mask.shape[-1]} columns where {unpruned} are due: the cache of a pruned "
            "prompt cannot be handed to another generate; start it anew with the whole conversation"
        )
    positions = prompt.next_positions(given.get("position_ids"), new, past, compact)
    return {"attention_mask": prompt.mask(past + new), "position_ids": positions}


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
