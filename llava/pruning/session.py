"""Pruning one model: what is hooked into it, and what happens in each of its calls."""

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from llava.model.multimodal_encoder.clip_relevance import ClipRelevance
from llava.model.selection import PruneRecord
from llava.pruners import Pruner
from llava.pruning.families import Family
from llava.pruning.shorten import Shortened
from llava.pruning.visual import Seen, Visual, choose, text_relevance

PIXELS = ("pixel_values", "pixel_values_images", "pixel_values_videos", "mm_encoder_outputs")


@dataclass(frozen=True)
class Settings:
    """How a model is pruned; see ``prune``."""

    pruner: Pruner
    relevance: str
    clip: ClipRelevance | None
    compact: bool
    budget_scope: str | None


@dataclass(frozen=True)
class Decision:
    """What was kept of a prompt, for calls that read it again."""

    ids: Tensor  # (B, L)
    keep: Tensor  # (B, L)


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
        self._visuals: dict[str, list[Visual]] = {}
        self._ids: Tensor | None = None
        self._decision: Decision | None = None
        self._prompts: WeakKeyDictionary[Any, Shortened] = WeakKeyDictionary()  # by the cache that holds them
        self._encoding = False
        self._shows = False  # whether the current call reads images or videos
        self._handles = [
            model.register_forward_pre_hook(_refuse_labels, with_kwargs=True),
            family.base.register_forward_pre_hook(self._before_model, with_kwargs=True),
            family.base.language_model.register_forward_pre_hook(self._before_language_model, with_kwargs=True),
        ]
        for modality in family.modalities:
            name = f"get_{modality}_features"
            setattr(family.base, name, self._watched(modality, getattr(family.base, name)))

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

    def _watched(self, modality: str, encode: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``encode``, which also notes the images or videos that it encodes."""
        needs, clip = self.settings.pruner.needs, self.settings.clip is not None
        signature = inspect.signature(encode)

        @functools.wraps(encode)
        def watched(*args: Any, **kwargs: Any) -> Any:
            if self._encoding:  # a video that is encoded as images are, by the same method
                return encode(*args, **kwargs)
            self._encoding = True
            try:
                with self.family.recording(modality, needs) as tape:
                    output = encode(*args, **kwargs)
            finally:
                self._encoding = False
            arguments = signature.bind(*args, **kwargs).arguments
            clip_needed = clip and "relevance" in needs
            with torch.no_grad():
                self._visuals[modality] = self.family.visuals(modality, output, arguments, tape, clip_needed)
            self._decision = None
            return output

        return watched

    def _before_model(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Note the prompt's ids; give a hand-written decoding loop the mask that ``generate`` would give."""
        ids = args[0] if args else kwargs.get("input_ids")
        self._ids = ids
        self._shows = any(_given(kwargs.get(name)) for name in PIXELS)
        prompt = self._prompt_of(kwargs)
        if prompt is None or kwargs.get("attention_mask") is not None or kwargs.get("position_ids") is not None:
            return None
        lost = prompt.length - prompt.width
        length = kwargs["past_key_values"].get_seq_length() + lost + ids.shape[1]
        return args, {**kwargs, "attention_mask": prompt.unpruned_mask(length)}

    def _prompt_of(self, kwargs: dict[str, Any]) -> Shortened | None:
        cache = kwargs.get("past_key_values")
        return None if cache is None or not cache.get_seq_length() else self._prompts.get(cache)

    def _before_language_model(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        prompt = self._prompt_of(kwargs)
        if prompt is not None:
            return args, {**kwargs, **self._continued(prompt, kwargs)}
        visual = self._visual_columns()
        if visual is None or not visual.any():
            return None
        cache = kwargs.get("past_key_values")
        _refuse_cache(cache)
        use_cache = kwargs.get("use_cache")
        if cache is None and (module.config.use_cache if use_cache is None else use_cache):
            cache = kwargs["past_key_values"] = DynamicCache(config=module.config)
        given = kwargs.get("attention_mask")
        if given is not None and given.ndim != 2:
            raise NotImplementedError(f"pruning needs an attention_mask (B, L), not one of shape {tuple(given.shape)}")
        real = torch.ones_like(visual) if given is None else given.bool()
        keep = self._keep(visual, real, kwargs["inputs_embeds"])
        if torch.equal(keep, real):
            return args, kwargs
        short = Shortened.of(keep, real)
        if cache is not None:
            self._prompts[cache] = short
        return args, {**kwargs, **self._shortened(short, keep, kwargs)}

    def _visual_columns(self) -> Tensor | None:
        """Where the prompt that is read holds visual tokens, (B, L)."""
        if self._ids is None or not self._shows:  # an answer may contain a placeholder's id
            return None
        ids = [self.family.token_id(modality) for modality in self._visuals]
        return torch.isin(self._ids, torch.tensor(ids, device=self._ids.device))

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

    def _keep(self, visual: Tensor, real: Tensor, embeds: Tensor) -> Tensor:
        """Return which columns are kept (B, L): those decided on before for these prompts, or new ones."""
        ids, decision = self._ids, self._decision
        if decision is not None and ids.shape[0] == len(decision.ids):
            length = decision.ids.shape[1]
            if torch.equal(ids[:, :length], decision.ids):
                return torch.cat([decision.keep, real[:, length:]], dim=1)
        with torch.no_grad():
            keep = real & (~visual | self._chosen(visual, real, embeds))
        self._decision = Decision(ids, keep)
        return keep

    def _chosen(self, visual: Tensor, real: Tensor, embeds: Tensor) -> Tensor:
        """Choose, fill the record, and return the chosen columns (B, L)."""
        places, seen = [], []
        copies = self._copies()
        texts = self._texts(len(self._ids) // copies)
        for row, column in self._columns_of_visuals(copies):
            text = embeds[row][real[row] & ~visual[row]]
            entry = Seen(column[0], embeds[row, column[1]])
            seen.append(self._with_relevance(entry, text, texts[row // copies]))
            places.append((row, column[1]))
        positions = choose(self.settings.pruner, seen, self.settings.budget_scope)
        chosen = torch.zeros_like(visual)
        for (row, columns), kept in zip(places, positions, strict=True):
            chosen[row : row + copies, columns[kept.to(columns.device)]] = True
        self._fill_record([entry.visual for entry in seen], positions)
        return chosen

    def _with_relevance(self, entry: Seen, text: Tensor, question: str | None) -> Seen:
        if "relevance" not in self.settings.pruner.needs:
            return entry
        if self.settings.clip is None:
            return Seen(entry.visual, entry.embeds, text_relevance(entry.embeds, text))
        relevance = self.settings.clip(entry.visual.clip_patches.unsqueeze(0), [question])[0]
        return Seen(entry.visual, entry.embeds, relevance)

    def _texts(self, prompts: int) -> list[str | None]:
        if self.settings.clip is None or "relevance" not in self.settings.pruner.needs:
            return [None] * prompts
        texts = [self.texts] * prompts if isinstance(self.texts, str) else list(self.texts or [])
        if len(texts) != prompts:
            raise ValueError(
                f'relevance="clip_text" needs the question of each prompt: `texts` has {len(texts)} entries for '
                f"{prompts} prompts. Give `texts` to prune, or set it on what prune returns"
            )
        return texts

    def _copies(self) -> int:
        """How often each prompt stands in the batch: beams and returned sequences are copies, side by side."""
        copies = set()
        for modality in self._shown():
            placed = int((self._ids == self.family.token_id(modality)).sum())
            copies.add(Fraction(placed, sum(visual.length for visual in self._visuals[modality])))
        if len(copies) != 1 or any(times.denominator != 1 for times in copies):
            raise NotImplementedError(
                "the prompts do not hold every visual token that was encoded: pruning needs whole prompts, each with "
                "its images (chunked prefill is not supported)"
            )
        return int(copies.pop())

    def _shown(self) -> list[str]:
        """The modalities that the prompt shows."""
        return [name for name in self._visuals if (self._ids == self.family.token_id(name)).any()]

    def _columns_of_visuals(self, copies: int) -> list[tuple[int, tuple[Visual, Tensor]]]:
        """Return row, visual and its columns (L,), in the order of the prompts, the first copy of each alone."""
        found = []
        for modality in self._shown():
            rows, columns = (self._ids[::copies] == self.family.token_id(modality)).nonzero(as_tuple=True)
            visuals = self.family.grouped(self._visuals[modality], rows, columns)
            lengths = [visual.length for visual in visuals]
            for visual, row, place in zip(visuals, rows.split(lengths), columns.split(lengths), strict=True):
                found.append((int(row[0]) * copies, (visual, place)))
        return sorted(found, key=lambda entry: (entry[0], int(entry[1][1][0])))

    def _fill_record(self, visuals: list[Visual], kept: list[Tensor]) -> None:
        self.keep = kept
        self.visual_tokens = [len(positions) for positions in kept]
        self.tokens_before = [visual.length for visual in visuals]
        self.newline_tokens = [
            0 if visual.newline is None else int(visual.newline.cpu()[positions].sum())
            for visual, positions in zip(visuals, kept, strict=True)
        ]


def _given(pixels: Any) -> bool:
    return any(output is not None for output in pixels.values()) if isinstance(pixels, dict) else pixels is not None


def _refuse_labels(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
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
