"""Pruning one model: what is hooked into it, and what happens in each of its calls.

In the order of a call: ``_encode`` stands for the model's ``get_image_features`` and notes what the encoder saw;
``_before_model`` sees the prompt's ids; ``_before_language_model`` shortens a prompt, or hands the choice on to
``prune_layer``; and for the tokens behind a shortened prompt it corrects mask and positions (``_continued``).
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from llava.model.language_model.layer_pruning import CHOOSE, QueryAttention, prune_at_layer
from llava.model.multimodal_encoder.clip_relevance import ClipRelevance
from llava.model.selection import PruneRecord
from llava.pruners import Pruner
from llava.pruning.encoded import ENCODED, Notes, same, shown
from llava.pruning.families import Family
from llava.pruning.prompts import Prompts, in_prompt, questions
from llava.pruning.shorten import Shortened
from llava.pruning.visual import Visual, choose

PROMPT = "pruned_prompt"  # on a cache: the shortened prompt in it; copies of the cache take it along


@dataclass(frozen=True)
class Settings:
    """How a model is pruned; see ``prune``."""

    pruner: Pruner
    clip: ClipRelevance | None
    compact: bool
    budget_scope: str | None
    prune_layer: int


@dataclass(frozen=True)
class Call:
    """A call of the model that has not reached its language model yet."""

    ids: Tensor | None  # (B, L) None where embeddings were given
    shows: bool  # whether it reads images or videos
    encoded: dict[str, list[Visual]]  # which, by modality


@dataclass(frozen=True)
class Decision:
    """What was decided of a batch of prompts, for calls that read it again."""

    ids: Tensor  # (B, L)
    encoded: Mapping[str, list[Visual]]
    keep: Tensor  # (B, L)
    merged: Tensor | None  # (B, L, D) the embeddings of a pruner that merges


class Pruning(PruneRecord):
    """A pruned model, until ``remove``; a context manager that removes itself; and the record of the last call.

    Attributes:
        keep: per image or video of the last call, in the order of the prompts, the kept positions (K,), ascending.
        visual_tokens: how many those are; ``tokens_before``: how many there were; ``newline_tokens``: kept newlines.
        texts: the question of each prompt, or one for all; read with ``relevance="clip_text"`` alone.
    """

    def __init__(self, model: nn.Module, family: Family, settings: Settings, texts: str | Sequence[str] | None):
        super().__init__()
        self.model, self.family, self.settings, self.texts = model, family, settings, texts
        self._call: Call | None = None
        self._decision: Decision | None = None
        self._encoding = False
        self._notes = Notes()
        self._parameters = list(inspect.signature(family.base.forward).parameters)
        self._handles = [
            model.register_forward_pre_hook(_refuse_columns, with_kwargs=True),
            family.base.register_forward_pre_hook(self._before_model, with_kwargs=True),
            family.base.language_model.register_forward_pre_hook(self._before_language_model, with_kwargs=True),
        ]
        if settings.prune_layer:  # its hooks run behind those that bring it the choice
            self._handles.append(prune_at_layer(family.base.language_model, settings.prune_layer))
        for modality in family.modalities:
            name = f"get_{modality}_features"
            encode = getattr(family.base, name)  # a partial is copied with the model, a closure is not
            setattr(family.base, name, functools.update_wrapper(partial(self._encode, modality, encode), encode))

    def __enter__(self) -> "Pruning":
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Leave the model as it was."""
        for handle in self._handles:
            handle.remove()
        for modality in self.family.modalities:
            vars(self.family.base).pop(f"get_{modality}_features", None)
        if getattr(self.model, "_pruning", None) is self:
            del self.model._pruning

    def _encode(self, modality: str, encode: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return what ``encode`` does, with a note of the images or videos on it."""
        if self._encoding:  # a video that is encoded as images are, by the same method
            return encode(*args, **kwargs)
        arguments = inspect.signature(encode).bind(*args, **kwargs).arguments
        self._encoding = True
        try:
            layer = arguments.get("vision_feature_layer")
            with self.family.recording(modality, self.settings.pruner.needs, layer) as tape:
                output = encode(*args, **kwargs)
        finally:
            self._encoding = False
        with torch.no_grad():
            visuals = self.family.visuals(modality, output, arguments, tape, self.settings.clip is not None)
        self._notes.note(output, visuals)
        if self._call is not None:
            self._call.encoded[modality] = visuals
        return output

    def _before_model(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Note what is called; give a hand-written decoding loop the mask that ``generate`` would give."""
        given = {**dict(zip(self._parameters, args, strict=False)), **kwargs}
        ids = given.get("input_ids")
        shows = shown(given)
        if shows and ids is None:
            raise NotImplementedError("images beside inputs_embeds: pruning needs the prompt's input_ids")
        self._call = Call(ids, shows, self._notes.find(given.get(ENCODED)))
        prompt = self._prompt_of(given)
        if prompt is None or given.get("attention_mask") is not None or given.get("position_ids") is not None:
            return None
        new = given["inputs_embeds"] if ids is None else ids
        length = given["past_key_values"].get_seq_length() + prompt.length - prompt.width + new.shape[1]
        return (), {**given, "attention_mask": prompt.unpruned_mask(length)}

    def _prompt_of(self, kwargs: dict[str, Any]) -> Shortened | None:
        cache = kwargs.get("past_key_values")
        return None if cache is None or not cache.get_seq_length() else getattr(cache, PROMPT, None)

    def _before_language_model(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        call, self._call = self._call, None
        prompt, cache = self._prompt_of(kwargs), kwargs.get("past_key_values")
        shows = call is not None and call.shows and self.family.visual_columns(call.ids, call.encoded).any()
        if shows:  # else an answer may contain a placeholder's id
            _refuse_cache(cache)
        if prompt is not None:
            return args, {**kwargs, **self._continued(prompt, kwargs)}
        if cache is not None:
            vars(cache).pop(PROMPT, None)  # of an earlier prompt: the cache was emptied
        if not shows:
            if call is not None and (cache is None or not cache.get_seq_length()):
                self._fill_record([], [])
            return None
        prompts = Prompts(self.family, call.ids, _real(kwargs.get("attention_mask"), call.ids), call.encoded)
        if self.settings.prune_layer:
            return args, {**kwargs, CHOOSE: partial(self._choose_inside, prompts)}
        return args, self._pruned(module, prompts, kwargs)

    def _choose_inside(self, prompts: Prompts, hidden_states: Tensor, attention: QueryAttention) -> Tensor:
        """Return what the layers from ``prune_layer`` on see of the prompts, (B, L) bool."""
        return self._decide(prompts, hidden_states, attention).keep

    def _pruned(self, module: nn.Module, prompts: Prompts, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of the language model with the prompts shortened."""
        cache, use_cache = kwargs.get("past_key_values"), kwargs.get("use_cache")
        if cache is None and (module.config.use_cache if use_cache is None else use_cache):
            cache = kwargs["past_key_values"] = DynamicCache(config=module.config)
        embeds = kwargs["inputs_embeds"]
        decision = self._decide(prompts, embeds)
        if torch.equal(decision.keep, prompts.real):
            return kwargs
        if not decision.keep.any(dim=1).all():
            raise ValueError("nothing was kept of a prompt: keep at least one token of each")
        if decision.merged is not None:
            made = torch.nn.functional.pad(decision.merged, (0, 0, 0, embeds.shape[1] - decision.merged.shape[1]))
            kwargs["inputs_embeds"] = torch.where(
                prompts.visual.unsqueeze(2).to(embeds.device), made.to(embeds), embeds
            )
        short = Shortened.of(decision.keep, prompts.real)
        if cache is not None:
            setattr(cache, PROMPT, short)
        return {**kwargs, **self._shortened(short, decision.keep, kwargs)}

    def _shortened(self, short: Shortened, keep: Tensor, kwargs: dict[str, Any]) -> dict[str, Any]:
        embeds = kwargs["inputs_embeds"]
        return {
            "inputs_embeds": short.take(embeds),
            "attention_mask": short.mask(short.width).to(embeds.device),
            "position_ids": short.positions(kwargs.get("position_ids"), self.settings.compact),
            **self.family.shorten(kwargs, keep, short),
        }

    def _continued(self, prompt: Shortened, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return mask and positions of tokens behind a pruned prompt."""
        new, past = kwargs["inputs_embeds"].shape[1], kwargs["past_key_values"].get_seq_length()
        unpruned = past + new + prompt.length - prompt.width
        given = kwargs.get("attention_mask")
        if given is not None and given.shape[-1] != unpruned:
            raise NotImplementedError(
                f"an attention_mask of {given.shape[-1]} columns where {unpruned} are due: the cache of a pruned "
                "prompt cannot be handed to another generate; start it anew with the whole conversation"
            )
        positions = prompt.next_positions(kwargs.get("position_ids"), new, past, self.settings.compact)
        return {"attention_mask": prompt.mask(past + new), "position_ids": positions}

    def _decide(self, prompts: Prompts, embeds: Tensor, attention: QueryAttention | None = None) -> Decision:
        """Return what is kept of the prompts: as decided before, if these are the same and tokens behind them."""
        decision, ids = self._decision, prompts.ids
        if decision is not None and len(ids) == len(decision.ids) and same(decision.encoded, prompts.encoded):
            length = decision.ids.shape[1]
            if torch.equal(ids[:, :length], decision.ids):
                return replace(decision, keep=torch.cat([decision.keep, prompts.real[:, length:]], dim=1))
        with torch.no_grad():
            self._decision = self._decided(prompts, embeds, attention)
        return self._decision

    def _decided(self, prompts: Prompts, embeds: Tensor, attention: QueryAttention | None) -> Decision:
        """Choose, and fill the record."""
        needs, clip = self.settings.pruner.needs, self.settings.clip
        texts = None if clip is None else questions(self.texts, len(prompts.ids) // prompts.copies)
        attended = attention() if attention is not None and "text_attention" in needs else None
        seen = [
            in_prompt(prompts, placed, embeds[placed.row], needs, clip, texts and texts[placed.row // prompts.copies])
            for placed in prompts.placed
        ]
        if attended is not None:
            seen = [
                replace(entry, text_attention=attended[placed.row, placed.columns])
                for entry, placed in zip(seen, prompts.placed, strict=True)
            ]
        kept, tokens = choose(self.settings.pruner, seen, self.settings.budget_scope)
        chosen = torch.zeros_like(prompts.visual)
        merged = None if tokens is None else embeds.detach().clone()
        for index, (placed, positions) in enumerate(zip(prompts.placed, kept, strict=True)):
            copies = slice(placed.row, placed.row + prompts.copies)
            chosen[copies, placed.columns[positions.to(placed.columns.device)]] = True
            if merged is not None:
                merged[copies, placed.columns] = tokens[index]
        self._fill_record([placed.visual for placed in prompts.placed], kept)
        return Decision(prompts.ids, prompts.encoded, prompts.real & (~prompts.visual | chosen), merged)

    def _fill_record(self, visuals: list[Visual], kept: list[Tensor]) -> None:
        self.keep = kept
        self.visual_tokens = [len(positions) for positions in kept]
        self.tokens_before = [visual.length for visual in visuals]
        self.newline_tokens = [
            0 if visual.newline is None else int(visual.newline.cpu()[positions].sum())
            for visual, positions in zip(visuals, kept, strict=True)
        ]


def _refuse_columns(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if isinstance(kwargs.get("logits_to_keep"), Tensor):
        raise NotImplementedError("columns as `logits_to_keep` do not shorten with the prompt: give a number")
    if kwargs.get("labels") is not None:
        raise NotImplementedError("`labels` do not shorten with the prompt: a pruned model does not compute a loss")


def _refuse_cache(cache: Any) -> None:
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


def _real(mask: Tensor | None, ids: Tensor) -> Tensor:
    """Which tokens are no padding, (B, L) bool."""
    if mask is None:
        return torch.ones_like(ids, dtype=torch.bool)
    if mask.ndim != 2:
        raise NotImplementedError(f"pruning needs an attention_mask (B, L), not one of shape {tuple(mask.shape)}")
    return mask.bool()
