"""Pruning one model: what is hooked into it, and what happens in each of its calls.

In the order of a call: ``_encode`` stands for the model's ``get_image_features`` and notes what the encoder saw;
``_before_model`` sees the prompt's ids; ``_before_language_model`` shortens a prompt, or hands the choice on to
``prune_layer``; and for the tokens behind a shortened prompt it corrects mask and positions (``continued``).
Behind the language model, ``_after_language_model`` and ``_after_model`` hold what it read against what was decided: a
call that would be answered without the pruning that was asked for is an error. What is known of a call is its thread's.
"""

import functools
import inspect
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from llava import compat
from llava.pruning import calls
from llava.pruning.deciding import Decisions
from llava.pruning.encoded import ENCODED, Notes, shown
from llava.pruning.families import Family
from llava.pruning.prompts import Prompts, Texts
from llava.pruning.shorten import Shortened
from llava.selecting.at_layer import CHOOSE, QueryAttention, prune_at_layer
from llava.selecting.late import Decision
from llava.selecting.options import AS_SET, PruningOptions
from llava.selecting.per_thread import Inherited, PerThread, unchanged
from llava.selecting.record import PruneRecord
from llava.selecting.references import read_erank_refs


def _of_record(name: str) -> property:
    return property(lambda pruning: getattr(pruning.record, name))


class Pruning:
    """A pruned model, until ``remove``; a context manager that removes itself; and the record of the last call.

    The record is of the last call of the thread that asks, so that threads may call the model at the same time.

    Attributes:
        keep: per image or video of the last call, in the order of the prompts, the kept positions (K,), ascending.
        visual_tokens: how many those are; ``tokens_before``: how many there were; ``newline_tokens``: kept newlines.
        budgets: what each image or video was given, where that depends on what it shows, else None.
        texts: the question of each prompt, or one for all; read with ``relevance="clip_text"``, and by pruners that
            read words. A thread that sets none has those of the thread that called ``prune``.
    """

    def __init__(
        self, model: nn.Module, family: Family, options: PruningOptions, texts: Texts = None, tokenizer: Any = None
    ):
        self.model, self.family = model, family
        self._erank_refs = read_erank_refs(getattr(model, "name_or_path", "") or "")
        self.options = options.completed(self._erank_refs)
        self._decisions = Decisions(family, tokenizer)
        self._decisions.clip_of(options)
        self._threads = PerThread(calls.ThreadState)
        self._texts = Inherited(texts)
        self._notes = Notes()
        self._parameters = compat.parameters_of(family.base.forward)
        language_model = family.base.language_model
        self._language_parameters = compat.parameters_of(language_model.forward)
        family.listen()
        self._handles = [
            model.register_forward_pre_hook(self._before_answer, with_kwargs=True),
            model.register_forward_hook(self._after_answer, with_kwargs=True),
            family.base.register_forward_pre_hook(self._before_model, with_kwargs=True),
            family.base.register_forward_hook(self._after_model, always_call=True),
            language_model.register_forward_pre_hook(self._before_language_model, with_kwargs=True),
        ]
        if options.prune_layer:  # its hooks run behind those that bring it the choice
            self._handles.append(prune_at_layer(language_model, options.prune_layer))
        self._handles.append(language_model.register_forward_hook(self._after_language_model))
        layers = getattr(language_model, "layers", None)
        self._counts = isinstance(layers, nn.ModuleList)  # one that is wrapped in another module shows no layers
        if self._counts:
            self._handles.append(layers[0].register_forward_pre_hook(self._before_layers, with_kwargs=True))
        self._stand_in(model, "generate", self._generate)
        for modality in family.modalities:
            self._stand_in(family.base, f"get_{modality}_features", partial(self._encode, modality))

    def _stand_in(self, owner: nn.Module, name: str, call: Callable[..., Any]) -> None:
        """Put ``call``, which is given the method that it stands for, in its place on this instance."""
        method = getattr(owner, name)  # a partial is copied with the model, a closure is not
        setattr(owner, name, functools.update_wrapper(partial(call, method), method))

    def __enter__(self) -> "Pruning":
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Leave the model as it was."""
        for handle in self._handles:
            handle.remove()
        self.family.forget()
        vars(self.model).pop("generate", None)
        for modality in self.family.modalities:
            vars(self.family.base).pop(f"get_{modality}_features", None)
        if getattr(self.model, "_pruning", None) is self:
            del self.model._pruning

    keep, visual_tokens = _of_record("keep"), _of_record("visual_tokens")
    newline_tokens, tokens_before = _of_record("newline_tokens"), _of_record("tokens_before")
    budgets = _of_record("budgets")

    @property
    def record(self) -> PruneRecord:
        """What the last call of this thread kept."""
        return self._threads.value.record

    def call_of(self, pruning: Any) -> PruneRecord | None:
        """The record of this thread's last call, which was told ``pruning``; None where that says not to prune."""
        return None if self.options.brought(pruning).pruner is None else self.record

    @property
    def texts(self) -> Texts:
        return self._texts.value

    @texts.setter
    def texts(self, texts: Texts) -> None:
        self._texts.value = texts

    @property
    def _options(self) -> PruningOptions:
        """What the call of this thread prunes with."""
        return self._threads.value.options or self.options

    @property
    def _compact(self) -> bool:
        return self._options.compact(self.family.positions[0])

    def _generate(self, generate: Callable[..., Any], *args: Any, pruning: Any = AS_SET, **kwargs: Any) -> Any:
        """Return what ``generate`` does, pruned as this call asks, if it pruned what it was shown."""
        thread, options = self._threads.value, self.options.brought(pruning).completed(self._erank_refs)
        self.family.check(options.positions, options.prune_layer)
        self.family.check_cues(options, self._decisions.tokenizer)
        thread.options, thread.checked = options, 0
        if options.pruner is None:
            thread.record = PruneRecord()
        shows = bool(shown(kwargs)) and options.pruner is not None
        watched = shows or compat.cache_of(kwargs) is not None
        under_way = unchanged("its pruning", self, lambda: getattr(self.model, "_pruning", None))
        try:
            with under_way if watched else nullcontext():
                output = generate(*args, **kwargs)
        finally:
            thread.options = None
        if shows and not thread.checked:
            raise compat.not_pruned(f"{type(self.model).__name__}.generate called no forward with the images")
        return output

    @torch.compiler.disable  # what was compiled before it was pruned knows nothing of the hooks that note the cues
    def _encode(self, modality: str, encode: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return what ``encode`` does, with a note of the images or videos on it."""
        thread = self._threads.value
        if thread.encoding or self._options.pruner is None:  # a video that is encoded as images are, by the same method
            return encode(*args, **kwargs)
        arguments = inspect.signature(encode).bind(*args, **kwargs).arguments
        thread.encoding = True
        try:
            layer = arguments.get("vision_feature_layer")
            options = self._options
            with self.family.recording(modality, options.needs, layer, options.pruner.asks) as cues:
                output = encode(*args, **kwargs)
        finally:
            thread.encoding = False
        if "features" not in cues:
            raise compat.not_pruned(f"{type(self.family.base).__name__} encoded its images without its modules' hooks")
        clip = self._decisions.clip_of(self._options) is not None
        with torch.no_grad():
            visuals = self.family.visuals(modality, arguments, cues, clip)
        self._notes.note(output, visuals)
        if thread.call is not None:
            thread.call.encoded[modality] = visuals
        return output

    def _before_answer(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._options.pruner is not None:
            calls.refuse_columns(compat.arguments_of(module, args, kwargs))
        thread = self._threads.value
        thread.asked = thread.checked

    def _after_answer(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Refuse an answer to images that none of the other hooks knows of."""
        thread, base = self._threads.value, type(self.family.base).__name__
        asked = self._options.pruner is not None and shown(compat.arguments_of(module, args, kwargs))
        if asked and thread.checked == thread.asked:
            raise compat.not_pruned(f"{type(module).__name__} did not call its {base} {calls.AS_MODULE}")

    def _before_model(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Note what is called; give a hand-written decoding loop the mask that ``generate`` would give."""
        given = compat.named(self._parameters, args, kwargs)
        if self._options.pruner is None:
            return None
        ids = given.get("input_ids")
        shows = shown(given)
        if shows:
            compat.refuse_unknown(module.forward, type(module).__name__, ("input_ids", *compat.SHORTENED_BY))
            if ids is None:
                raise NotImplementedError("images beside inputs_embeds: pruning needs the prompt's input_ids")
        self._threads.value.call = calls.Call(ids, shows, self._notes.find(given.get(ENCODED)))
        self.family.unheard.value = False
        prompt = calls.prompt_of(given)
        if prompt is None or given.get("attention_mask") is not None or given.get("position_ids") is not None:
            return None
        new = given["inputs_embeds"] if ids is None else ids
        length = given[compat.CACHE].get_seq_length() + prompt.length - prompt.width + new.shape[1]
        return (), {**given, "attention_mask": prompt.unpruned_mask(length)}

    def _after_model(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Refuse an answer to images that the language model did not read as decided; None is an error's output."""
        thread = self._threads.value
        call, thread.call = thread.call, None
        if output is None or call is None or not (call.shown or call.encoded):
            return
        returned = compat.positions_in(output)
        if call.answered and returned != call.read:
            raise compat.not_pruned(
                f"{type(module).__name__} returned {returned} positions where its language model read {call.read}"
            )
        if not call.answered:
            raise compat.not_pruned(f"{type(module).__name__} did not call its language model {calls.AS_MODULE}")
        thread.checked += 1

    def _before_language_model(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = compat.named(self._language_parameters, args, kwargs)
        call, cache = self._threads.value.call, given.get(compat.CACHE)
        prompt = calls.prompt_of(given)
        if call is None:  # the language model by itself
            return None if prompt is None else ((), {**given, **calls.continued(prompt, given, self._compact)})
        shows = calls.shows_visuals(self.family, call, prompt is not None or calls.filled(cache))
        if shows:  # else an answer may contain a placeholder's id
            calls.refuse_cache(cache)
            compat.refuse_unknown(module.forward, type(module).__name__, ("inputs_embeds", *compat.SHORTENED_BY))
        calls.check_arguments(module, call, given, shows)
        call.decided = not shows
        if prompt is not None:
            return (), {**given, **calls.continued(prompt, given, self._compact)}
        if cache is not None:
            vars(cache).pop(calls.PROMPT, None)  # of an earlier prompt: the cache was emptied
        if not shows:
            if not calls.filled(cache):
                self._threads.value.record = PruneRecord.of([], [])
            return None
        prompts = Prompts(self.family, call.ids, calls.real_tokens(given.get("attention_mask"), call.ids), call.encoded)
        if self._options.prune_layer:
            return (), {**given, CHOOSE: partial(self._choose_inside, call, prompts)}
        return (), self._pruned(module, call, prompts, given)

    def _after_language_model(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Hold the positions that were read, and those in the cache, against what was decided."""
        call = self._threads.value.call
        if call is not None and (call.shown or call.encoded):
            call.answer(type(module).__name__, compat.positions_in(output), self._counts)

    def _before_layers(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        call, states = self._threads.value.call, args[0] if args else kwargs.get("hidden_states")
        if call is not None and isinstance(states, Tensor):
            call.by_layers = states.shape[1]

    def _choose_inside(
        self, call: calls.Call, prompts: Prompts, hidden_states: Tensor, attention: QueryAttention
    ) -> Tensor:
        """Return what the layers from ``prune_layer`` on see of the prompts, (B, L) bool."""
        call.decided = True
        return self._decide(prompts, hidden_states, attention).keep

    def _pruned(self, module: nn.Module, call: calls.Call, prompts: Prompts, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of the language model with the prompts shortened."""
        cache, use_cache = kwargs.get(compat.CACHE), kwargs.get("use_cache")
        if cache is None and (module.config.use_cache if use_cache is None else use_cache):
            cache = kwargs[compat.CACHE] = DynamicCache(config=module.config)
        embeds = kwargs["inputs_embeds"]
        decision = self._decide(prompts, embeds)
        call.decided, call.due, call.cache = True, embeds.shape[1], cache
        if torch.equal(decision.keep, prompts.real):
            return kwargs
        if decision.merged is not None:
            visual = prompts.visual.unsqueeze(2).to(embeds.device)
            kwargs["inputs_embeds"] = torch.where(visual, decision.merged.to(embeds), embeds)
        short = Shortened.of(decision.keep, prompts.real)
        call.due = short.width
        if cache is not None:
            setattr(cache, calls.PROMPT, short)
        shortened = short.arguments(kwargs, self._compact)
        return {**kwargs, **shortened, **self.family.shorten(kwargs, decision.keep, short)}

    def _decide(self, prompts: Prompts, embeds: Tensor, attention: QueryAttention | None = None) -> Decision:
        decision = self._decisions.of(self._options, prompts, embeds, self.texts, attention)
        self._threads.value.record = decision.record
        return decision
