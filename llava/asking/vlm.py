"""Transformers' own vision-language models: questions in, answers and likelihoods out."""

import inspect
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    PreTrainedModel,
)

from llava.asking.arguments import PRUNING, check_loading, place, positive, refuse_unknown, require_name
from llava.asking.batch import unfinished
from llava.asking.conversations import Video, conversation, rendered, separated
from llava.asking.likelihood import common_prefix, score_rows, tail_labels
from llava.asking.losses import noted, without_placeholders
from llava.asking.processes import Processes
from llava.asking.prompts import lmms_query, placeholders_lost
from llava.asking.questions import Question, Reply
from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.model.checkpoint import refuse_no_checkpoint
from llava.pruners import Pruner, option_names, resolve_pruner
from llava.pruning import FAMILIES, Pruning, check_transformers, prune
from llava.selecting.options import PruningOptions, check_choice
from llava.utils import encodable

SETTINGS = {
    parameter.name
    for parameter in inspect.signature(prune).parameters.values()
    if parameter.kind is parameter.KEYWORD_ONLY and parameter.name not in (*PRUNING, "texts")
}
LOADING = ("dtype", "attn_implementation", "revision")
PROCESSING = ("min_pixels", "max_pixels")
OWN = {*LOADING, *PROCESSING, "device_map", "chat_template", "max_frames_num"}


class VlmBackend:
    """A model of ``AutoModelForImageTextToText`` that answers batches of questions.

    Args:
        pretrained: folder or hub id of the checkpoint.
        processes: where this process runs.
        options: ``dtype``, ``attn_implementation``, ``revision`` and ``device_map`` of ``from_pretrained``;
            ``min_pixels`` and ``max_pixels`` of the processor; ``chat_template``, a file, where the processor has
            none or another is wanted; ``max_frames_num``, frames read of a video (32); ``pruner``, its budget and
            options, and what else ``llava.pruning.prune`` takes. Without ``pruner`` nothing is pruned.

    Attributes:
        visual_tokens: of all images and videos so far, if there is a pruner: ``images``, ``kept``, ``before`` pruning.
        lost: how many questions so far lost something, by the names of ``llava.asking.losses``.

    Raises:
        TypeError, ValueError, FileNotFoundError: unusable options, before the weights are loaded.
        ImportError: a Transformers too old to prune, before that, too.
    """

    def __init__(self, pretrained: str, processes: Processes, **options: Any):
        refuse_unknown(options, {*PRUNING, *SETTINGS, *OWN, *option_names()}, "vlm_pruned")
        require_name(options)
        own = {name: options.pop(name) for name in OWN if name in options}
        self.max_frames = positive("max_frames_num", own.get("max_frames_num", 32))
        processing = {name: positive(name, own[name]) for name in PROCESSING if name in own}
        device, device_map = place(processes, own.get("device_map")), own.get("device_map")
        check_loading(device, device_map, own.get("dtype"), own.get("attn_implementation"))
        pruner, settings = _pruning(options, pretrained)
        refuse_no_checkpoint(pretrained)
        self.processor = AutoProcessor.from_pretrained(pretrained, **processing)
        self.tokenizer = self.processor.tokenizer
        self.tokenizer.padding_side = "left"
        if "chat_template" in own:
            self.processor.chat_template = Path(own["chat_template"]).expanduser().read_text(encoding="utf-8-sig")
        if not self.processor.chat_template:
            raise ValueError(f"{pretrained} has no chat template: give one, chat_template=FILE")
        loading = {"dtype": "auto"} | {name: own[name] for name in LOADING if name in own}
        self.model: PreTrainedModel = AutoModelForImageTextToText.from_pretrained(
            pretrained, device_map=device_map or {"": device}, **loading
        ).eval()
        self.record: Pruning | None = None if pruner is None else prune(self.model, pruner, **settings)
        self.visual_tokens: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()

    @torch.inference_mode()
    def answer(self, questions: Sequence[Question], options: dict[str, Any]) -> list[Reply]:
        """Answer a batch; ``options`` are keywords of ``generate``."""
        questions, missed = self._readable(questions)
        conversations = [conversation(question, self.max_frames) for question in questions]
        prompts = [rendered(self.processor, each) for each in conversations]
        inputs = self._inputs(prompts, conversations, questions)
        if not options["do_sample"]:  # the checkpoint's own sampling settings would be warned about
            options = options | {"temperature": None, "top_p": None, "top_k": None}
        output = self.model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :]
        texts = self.tokenizer.batch_decode(output, skip_special_tokens=True)
        written = (output != self.tokenizer.pad_token_id).sum(dim=1).tolist()
        read = self._lengths(inputs["attention_mask"], conversations)
        ended = unfinished(output, self.model, self.tokenizer, options)
        lost = self._losses(questions, conversations, missed, ended)
        return [Reply(text.strip(), *counts) for text, *counts in zip(texts, read, written, lost, strict=True)]

    @torch.inference_mode()
    def score(self, questions: Sequence[Question]) -> list[tuple[float, bool]]:
        """The loss of every question's continuation, and whether it is what greedy decoding says."""
        questions, missed = self._readable(questions)
        conversations = [conversation(question, self.max_frames) for question in questions]
        prompts = [rendered(self.processor, each) for each in conversations]
        said = [
            rendered(self.processor, each, question.continuation.strip())
            for each, question in zip(conversations, questions, strict=True)
        ]
        counts = []
        for prompt, whole in zip(prompts, said, strict=True):
            ids = self._text_ids(whole)
            counts.append(len(ids) - common_prefix(self._text_ids(prompt), ids))
        inputs = self._inputs(said, conversations, questions)
        labels = tail_labels(inputs["input_ids"], counts)
        logits = self.model(**inputs, logits_to_keep=labels.shape[1] + 1).logits[:, :-1]
        self._lengths(inputs["attention_mask"], conversations)
        self._losses(questions, conversations, missed, [False] * len(questions))
        return score_rows(logits, labels)

    def _readable(self, questions: Sequence[Question]) -> tuple[list[Question], list[int]]:
        """Questions without what the processor takes for an image, a video or sound, and how many such words they had.

        ``<image>`` stays: it says where an image goes, in every processor's questions.
        """
        names = ("image_token", "video_token", "audio_token")
        marks = {str(getattr(self.processor, name, None) or "") for name in names} - {"", DEFAULT_IMAGE_TOKEN}
        cleaned, missed = [], []
        for question in questions:
            text, removed = encodable(question.text), 0
            if any(mark in text for mark in marks):
                pieces = [without_placeholders(piece, *marks) for piece in text.split(DEFAULT_IMAGE_TOKEN)]
                text = DEFAULT_IMAGE_TOKEN.join(piece for piece, _ in pieces)
                removed = sum(count for _, count in pieces)
            cleaned.append(replace(question, text=text))
            missed.append(removed)
        return cleaned, missed

    def _losses(
        self, questions: Sequence[Question], turns: list, missed: list[int], ended: list[bool]
    ) -> list[dict[str, Any]]:
        """What was lost of every question; adds it up."""
        rows = []
        for question, turn, removed, cut_short in zip(questions, turns, missed, ended, strict=True):
            images = sum(not isinstance(visual, Video) for visual in turn.visuals)
            lost = {"placeholders": removed + placeholders_lost(question.text, images), "unfinished": cut_short}
            rows.append(noted(lost))
        self.lost.update(name for row in rows for name in row)
        return rows

    def _inputs(self, prompts: list[str], conversations: list, questions: Sequence[Question]) -> Any:
        """The model's inputs for prompts and what they show, padded in front."""
        images, videos, metadata = separated(conversations)
        shown: dict[str, Any] = {"images": images} if images else {}
        if videos:
            shown |= {"videos": videos, "video_metadata": metadata, "do_sample_frames": False}
        inputs = self.processor(text=prompts, **shown, **self._specials(prompts[0]), padding=True, return_tensors="pt")
        if self.record is not None:
            self.record.texts = [lmms_query(question.text) for question in questions]
        return inputs.to(self.model.device, self.model.dtype)

    def _text_ids(self, prompt: str) -> list[int]:
        return self.tokenizer(prompt, **self._specials(prompt)).input_ids

    def _specials(self, prompt: str) -> dict[str, bool]:
        """Keep the tokenizer from putting a second beginning before that of the template."""
        begins = self.tokenizer.bos_token is not None and prompt.startswith(self.tokenizer.bos_token)
        return {"add_special_tokens": False} if begins else {}

    def _lengths(self, mask: torch.Tensor, conversations: list) -> list[int]:
        """The number of tokens the language model has just read of every prompt; adds up the visual ones."""
        lengths, shown = mask.sum(dim=1).tolist(), [len(each.visuals) for each in conversations]
        if self.record is None or not any(shown):
            return lengths
        kept, before = self.record.visual_tokens, self.record.tokens_before
        dropped = iter([b - k for b, k in zip(before, kept, strict=True)])
        self.visual_tokens.update(images=len(kept), kept=sum(kept), before=sum(before))
        return [length - sum(islice(dropped, count)) for length, count in zip(lengths, shown, strict=True)]


def _pruning(options: dict[str, Any], pretrained: str) -> tuple[Pruner | None, dict[str, Any]]:
    """Split the remaining arguments into the pruner and the other settings of ``prune``.

    Raises:
        TypeError, ValueError: options that do not fit, or a checkpoint of a class that cannot be pruned.
        ImportError: Transformers is too old for ``prune``.
    """
    settings = {name: options.pop(name) for name in SETTINGS if name in options}
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
    config = AutoConfig.from_pretrained(pretrained)
    model_class = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING.get(type(config), type(config))
    families = [FAMILIES[base.__name__] for base in model_class.__mro__ if base.__name__ in FAMILIES]
    if not families:
        raise TypeError(f"cannot prune {model_class.__name__}; supported classes: {', '.join(FAMILIES)}")
    check_choice("positions", asked.positions, (None, *families[0].positions))
    layers = config.get_text_config().num_hidden_layers
    if asked.prune_layer >= layers:
        raise ValueError(f"prune_layer {asked.prune_layer}: {pretrained} has {layers} decoder layers")
