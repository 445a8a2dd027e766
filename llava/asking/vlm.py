"""Transformers' own vision-language models: questions in, answers and likelihoods out."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    PreTrainedModel,
)

from llava import compat
from llava.asking.batch import positive
from llava.asking.conversations import Video, conversation, rendered, separated
from llava.asking.hosted import LOADING, HostedHistory, Item
from llava.asking.likelihood import common_prefix, score_rows, tail_labels
from llava.asking.losses import without_placeholders
from llava.asking.model import Model, Read, Show
from llava.asking.prompts import lmms_query, placeholders_lost
from llava.asking.questions import Question
from llava.asking.stream import streaming
from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.mm_utils import get_model_name_from_path
from llava.model.checkpoint import refuse_no_checkpoint
from llava.model.devices import check_attention, check_device, check_device_map, check_dtype
from llava.pruners import Pruner, resolve_pruner
from llava.pruning import Pruning, check_transformers, hook, prune, unprune
from llava.pruning.families import family_of
from llava.records import InputError
from llava.selecting.options import AS_SET, HOSTED, PruningOptions, check_choice, names_of, refuse_unknown
from llava.selecting.record import PruneRecord
from llava.utils import encodable

VISUAL_IDS = ("video_token_id", "video_token_index", "image_token_id", "image_token_index")


class VlmModel(Model):
    """A model of ``AutoModelForImageTextToText`` that answers batches of questions.

    Args:
        name, model: see ``Model``.
        processor: of the checkpoint, with a chat template.
        max_frames: frames read of a video.
        record: what is pruned, from ``llava.pruning.prune``; None if nothing is, and nothing is added up then.
    """

    host = HOSTED

    def __init__(
        self, name: str, processor: Any, model: PreTrainedModel, max_frames: int = 32, record: Pruning | None = None
    ):
        super().__init__(name, processor.tokenizer, model)
        self.processor, self.max_frames, self.record = processor, max_frames, record
        self._hooking = threading.Lock()

    @property
    def options(self) -> PruningOptions:
        return PruningOptions() if self.record is None else self.record.options

    def prune(self, pruner: str | Pruner | None, **options: Any) -> None:
        asked = PruningOptions.of(self.host, pruner="none" if pruner is None else pruner, **options)
        with self._hooking:
            before = self.options
            unprune(self.model)
            self.record = None
            try:
                self.record = self._hooked(asked)
            except Exception:
                self.record = self._hooked(before)
                raise

    def _hooked(self, options: PruningOptions) -> Pruning | None:
        return None if options.pruner is None else hook(self.model, options, self.tokenizer)

    def item(self, question: Question) -> Item:
        text, removed = self._readable(question.text)
        turn = conversation(replace(question, text=text), self.max_frames)
        images = sum(not isinstance(visual, Video) for visual in turn.visuals)
        lost = {"placeholders": removed + placeholders_lost(text, images)}
        return Item(turn, rendered(self.processor, turn), lmms_query(text), lost)

    def asked(self, question: str, visuals: Sequence[Any]) -> Item:
        self._check_clips(visuals)
        return self.item(Question(question, lambda: list(visuals), "the question"))

    def history(self, visuals: Sequence[Any]) -> HostedHistory:
        self._check_clips(visuals)
        return HostedHistory(self.processor, visuals, self.max_frames, self._readable)

    def _check_clips(self, visuals: Sequence[Any]) -> None:
        """Raise ValueError, which names it, for a clip that is not there or that the model does not read."""
        clip = next((visual for visual in visuals if isinstance(visual, str | np.ndarray | Video)), None)
        if clip is None:
            return
        if getattr(self.processor, "video_processor", None) is None:
            shown = clip if isinstance(clip, str) else "a clip of frames"
            raise ValueError(f"{shown}: {self.name} is a model of images, and reads no videos")
        if isinstance(clip, str) and not Path(clip).expanduser().is_file():
            raise InputError(f"{clip}: no such file")

    def _generate(
        self, items: Sequence[Item], generation: Mapping[str, Any], show: Show | None, stop: str, pruning: Any
    ) -> tuple[Tensor, Read]:
        options, record = dict(generation), self._record_for(pruning)
        if record is not None and pruning is not AS_SET:
            options["pruning"] = pruning
        inputs = self._inputs(items, [item.prompt for item in items])
        if not options["do_sample"]:  # the checkpoint's own sampling settings would be warned about
            options |= {"temperature": None, "top_p": None, "top_k": None}
        if show:
            options |= streaming(self.tokenizer, inputs["input_ids"], show, stop, skip_prompt=True)
        output = self.model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :]
        return output, self._read(items, inputs, None if record is None else record.call_of(pruning))

    def _record_for(self, pruning: Any) -> Pruning | None:
        """Who prunes a call that is told this; a model that nobody prunes gets hooks for a call that asks for it."""
        with self._hooking:
            asks = isinstance(pruning, PruningOptions) and pruning.pruner is not None
            if self.record is None and asks:
                self.record = hook(self.model, PruningOptions(), self.tokenizer)
            return self.record

    @torch.inference_mode()
    def score(self, questions: Sequence[Question]) -> list[tuple[float, bool]]:
        items = [*map(self.item, questions)]
        said = [
            rendered(self.processor, item.turn, question.ending)
            for item, question in zip(items, questions, strict=True)
        ]
        counts = []
        for item, whole in zip(items, said, strict=True):
            ids = self._text_ids(whole)
            counts.append(len(ids) - common_prefix(self._text_ids(item.prompt), ids))
        inputs = self._inputs(items, said)
        labels = tail_labels(inputs["input_ids"], counts)
        logits = self.model(**inputs, logits_to_keep=labels.shape[1] + 1).logits[:, :-1]
        record = None if self.record is None else self.record.call_of(AS_SET)
        self._noted(items, self._read(items, inputs, record), [False] * len(items))
        return score_rows(logits, labels)

    def _readable(self, text: str) -> tuple[str, int]:
        """A text without what the processor takes for an image, a video or sound, and how many such words it had.

        ``<image>`` stays: it says where an image goes, in every processor's questions.
        """
        names = ("image_token", "video_token", "audio_token")
        marks = {str(getattr(self.processor, name, None) or "") for name in names} - {"", DEFAULT_IMAGE_TOKEN}
        text = encodable(text)
        if not any(mark in text for mark in marks):
            return text, 0
        pieces = [without_placeholders(piece, *marks) for piece in text.split(DEFAULT_IMAGE_TOKEN)]
        return DEFAULT_IMAGE_TOKEN.join(piece for piece, _ in pieces), sum(count for _, count in pieces)

    def _inputs(self, items: Sequence[Item], prompts: list[str]) -> Any:
        """The model's inputs for prompts and what the items show, padded in front."""
        images, videos, metadata = separated([item.turn for item in items])
        shown: dict[str, Any] = {"images": images} if images else {}
        if videos:
            shown |= {"videos": videos, "video_metadata": metadata, "do_sample_frames": False}
        inputs = self.processor(text=prompts, **shown, **self._specials(prompts[0]), padding=True, return_tensors="pt")
        if self.record is not None:
            self.record.texts = [item.query for item in items]
        return inputs.to(self.model.device, self.model.dtype)

    def _text_ids(self, prompt: str) -> list[int]:
        return self.tokenizer(prompt, **self._specials(prompt)).input_ids

    def _specials(self, prompt: str) -> dict[str, bool]:
        """Keep the tokenizer from putting a second beginning before that of the template."""
        begins = self.tokenizer.bos_token is not None and prompt.startswith(self.tokenizer.bos_token)
        return {"add_special_tokens": False} if begins else {}

    def _read(self, items: Sequence[Item], inputs: Any, record: PruneRecord | None) -> Read:
        ids = [getattr(self.model.config, name) for name in VISUAL_IDS if hasattr(self.model.config, name)]
        before = torch.isin(inputs["input_ids"], torch.tensor(ids).to(inputs["input_ids"])).sum(dim=1).tolist()
        budgets, kept_of, counted = self._budgets(record), self._kept(record), iter(())
        if record is not None and any(item.turn.visuals for item in items):
            counted = zip(record.visual_tokens, record.newline_tokens, record.tokens_before, strict=True)
            self._add_up(record)
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        for item, length, tokens in zip(items, lengths, before, strict=True):
            count = len(item.turn.visuals)
            kept, newlines, whole = map(sum, zip((0, 0, 0), *islice(counted, count), strict=True))
            counts = {"visual_tokens": tokens if record is None else kept, "tokens_before": tokens}
            counts |= {"newline_tokens": newlines, "prompt_tokens": length - whole + kept}
            yield counts | {"budgets": [*islice(budgets, count)], "keep": tuple(islice(kept_of, count)) or None}, {}


def load_vlm(
    checkpoint: str,
    device: str | None = None,
    *,
    device_map: Any = None,
    dtype: torch.dtype | str | None = "auto",
    attn_implementation: str | None = None,
    revision: str | None = None,
    min_pixels: int | str | None = None,
    max_pixels: int | str | None = None,
    chat_template: str | Path | None = None,
    max_frames_num: int | str = 32,
    **pruning: Any,
) -> VlmModel:
    """Load a model of Transformers' own.

    Args:
        checkpoint: folder or hub id.
        device: where all of it goes; a GPU, or else the CPU, if not given.
        device_map, dtype, attn_implementation, revision: as ``from_pretrained``.
        min_pixels, max_pixels: as the processor.
        chat_template: a file, where the processor has none or another is wanted.
        max_frames_num: frames read of a video.
        pruning: ``pruner``, its budget and options, and what else ``llava.pruning.prune`` takes. Without ``pruner``
            nothing is pruned.

    Raises:
        TypeError, ValueError, FileNotFoundError: unusable options, before the weights are loaded.
        ImportError: a Transformers too old to prune, before that, too.
    """
    max_frames = positive("max_frames_num", max_frames_num)
    pixels = {"min_pixels": min_pixels, "max_pixels": max_pixels}
    pixels = {name: positive(name, value) for name, value in pixels.items() if value is not None}
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    check_device(device)
    check_device_map(device_map)
    known = None if dtype in (None, "auto") else check_dtype("dtype", dtype)
    check_attention(attn_implementation, device.startswith("cpu"), known)
    pruner, settings = _pruning(pruning, checkpoint)
    refuse_no_checkpoint(checkpoint)
    with compat.from_hub(checkpoint):
        processor = AutoProcessor.from_pretrained(checkpoint, **pixels)
    processor.tokenizer.padding_side = "left"
    if chat_template is not None:
        processor.chat_template = Path(chat_template).expanduser().read_text(encoding="utf-8-sig")
    if not processor.chat_template:
        raise ValueError(f"{checkpoint} has no chat template: give one, chat_template=FILE")
    named = {"attn_implementation": attn_implementation, "revision": revision}
    loading = {"dtype": dtype} | {name: value for name, value in named.items() if value is not None}
    place = device_map or {"": device}
    with compat.from_hub(checkpoint):
        model = AutoModelForImageTextToText.from_pretrained(checkpoint, device_map=place, **loading).eval()
    record = None if pruner is None else prune(model, pruner, tokenizer=processor.tokenizer, **settings)
    return VlmModel(get_model_name_from_path(checkpoint), processor, model, max_frames, record)


def _pruning(options: dict[str, Any], pretrained: str) -> tuple[Pruner | None, dict[str, Any]]:
    """Split the remaining arguments into the pruner and the other settings of ``prune``.

    Raises:
        TypeError, ValueError: options that do not fit, or a checkpoint of a class that cannot be pruned.
        ImportError: Transformers is too old for ``prune``.
    """
    refuse_unknown(options, HOSTED, "dtype", *LOADING)
    settings = {name: options.pop(name) for name in names_of(HOSTED) if name in options}
    pruner = resolve_pruner(**options)
    if pruner is None:
        if settings:
            raise ValueError(f"{', '.join(sorted(settings))} without a pruner: name it, as in pruner=cdpruner")
        return None, {}
    asked = PruningOptions(pruner, **settings)
    check_transformers()
    if asked.text_tower is not None:
        refuse_no_checkpoint(asked.text_tower)
    _check_model(asked, pretrained)
    return pruner, settings


def _check_model(asked: PruningOptions, pretrained: str) -> None:
    """Hold the options against what the config of a checkpoint says.

    Raises:
        TypeError: a class that cannot be pruned.
        ValueError: positions or a layer that the model does not have.
    """
    with compat.from_hub(pretrained):
        config = AutoConfig.from_pretrained(pretrained)
    model_class = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING.get(type(config), type(config))
    check_choice("positions", asked.positions, (None, *family_of(model_class).positions))
    layers = config.get_text_config().num_hidden_layers
    if asked.prune_layer >= layers:
        raise ValueError(f"prune_layer {asked.prune_layer}: {pretrained} has {layers} decoder layers")
