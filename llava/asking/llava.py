"""Checkpoints in LLaVA's format: questions in, answers and likelihoods out."""

import inspect
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch
from PIL import Image

from llava.asking.arguments import place, refuse_unknown, require_name
from llava.asking.batch import left_pad, pad_token_id, stack_images, unfinished
from llava.asking.likelihood import common_prefix, score_rows
from llava.asking.losses import noted
from llava.asking.processes import Processes
from llava.asking.prompts import first_turn, image_token, lmms_query, placeholders_lost, with_images
from llava.asking.questions import Question, Reply
from llava.constants import DEFAULT_IMAGE_TOKEN, IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.conversation import conv_templates
from llava.eval.ask.loop import query_overflow
from llava.mm_utils import get_model_name_from_path, process_images, tokenizer_image_token
from llava.model.builder import load_pretrained_model
from llava.model.loading import LOADING_OPTIONS
from llava.pruners import option_names

BUILDER = inspect.signature(load_pretrained_model).parameters.values()
LOADING = {parameter.name for parameter in BUILDER if parameter.kind is parameter.KEYWORD_ONLY} | {*LOADING_OPTIONS}
OWN = {"model_base", "load_8bit", "load_4bit", "device_map", "conv_template"}


class LlavaBackend:
    """A LLaVA checkpoint that answers batches of questions.

    Args:
        pretrained: folder or hub id of the checkpoint.
        processes: where this process runs.
        options: ``model_base``, ``load_8bit``, ``load_4bit``, ``device_map``, ``conv_template`` (a conversation
            template, ``vicuna_v1`` if not given), and what else ``load_pretrained_model`` takes: ``pruner``,
            its budget and options, ``anyres``, ``dtype``, ``budget_scope``, ...

    Attributes:
        visual_tokens: of all images so far: ``images``, ``kept`` and ``before`` pruning.
        lost: how many questions so far lost something, by the names of ``llava.asking.losses``.

    Raises:
        TypeError, ValueError, FileNotFoundError: unusable options, or as ``load_pretrained_model``.
    """

    def __init__(self, pretrained: str, processes: Processes, **options: Any):
        refuse_unknown(options, LOADING | OWN | {*option_names()}, "llava_pruned")
        require_name(options)
        self.conv_template = options.pop("conv_template", "vicuna_v1")
        if self.conv_template not in conv_templates:
            valid = ", ".join(sorted(conv_templates))
            raise ValueError(f"conv_template {self.conv_template!r} is unknown; valid are {valid}")
        device_map, base = options.pop("device_map", None), options.pop("model_base", None)
        options |= {"device": place(processes, device_map), "device_map": device_map}
        parts = load_pretrained_model(pretrained, base, get_model_name_from_path(pretrained), **options)
        self.tokenizer, self.model, self.image_processor, _ = parts
        self.visual_tokens: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()

    @torch.inference_mode()
    def answer(self, questions: Sequence[Question], options: dict[str, Any]) -> list[Reply]:
        """Answer a batch; ``options`` are keywords of ``generate``."""
        users, shown = self._shown(questions)
        rows = [self._tokens(first_turn(user, self.conv_template)) for user in users]
        ids, mask = left_pad([torch.tensor(row) for row in rows], pad_token_id(self.tokenizer))
        output = self.model.generate(
            ids.to(self.model.device),
            attention_mask=mask.to(self.model.device),
            texts=[lmms_query(question.text) for question in questions],
            pad_token_id=pad_token_id(self.tokenizer),
            **shown,
            **options,
        )
        texts = self.tokenizer.batch_decode(output, skip_special_tokens=True)
        written = (output != pad_token_id(self.tokenizer)).sum(dim=1).tolist()
        read = self._lengths(rows)
        ended = unfinished(output, self.model, self.tokenizer, options)
        lost = self._losses(questions, [row.count(IMAGE_TOKEN_INDEX) for row in rows], ended)
        return [Reply(text.strip(), *counts) for text, *counts in zip(texts, read, written, lost, strict=True)]

    @torch.inference_mode()
    def score(self, questions: Sequence[Question]) -> list[tuple[float, bool]]:
        """The loss of every question's continuation, and whether it is what greedy decoding says."""
        users, shown = self._shown(questions)
        rows, targets = [], []
        for user, question in zip(users, questions, strict=True):
            row = self._tokens(self._said(user, question.continuation))
            known = common_prefix(self._tokens(first_turn(user, self.conv_template)), row)
            rows.append(row)
            targets.append(torch.tensor([IGNORE_INDEX] * known + row[known:]))
        ids, mask = left_pad([torch.tensor(row) for row in rows], pad_token_id(self.tokenizer))
        labels, _ = left_pad(targets, IGNORE_INDEX)
        ids, mask, labels = (tensor.to(self.model.device) for tensor in (ids, mask, labels))
        texts = [lmms_query(question.text) for question in questions]
        _, positions, mask, _, embeds, labels, late = self.model.prepare_with_choice(
            ids, None, mask, None, labels, shown.get("images"), shown.get("image_sizes"), texts
        )
        inputs = {"input_ids": ids} if embeds is None else {"inputs_embeds": embeds}
        inputs |= {"attention_mask": mask, "position_ids": positions}
        if late is None:
            scored = (labels != IGNORE_INDEX).any(dim=0).nonzero().flatten()
            logits, labels = self.model(**inputs, logits_to_keep=scored - 1).logits, labels[:, scored]
        else:  # which columns will be left is known afterwards
            logits = self.model(**inputs, choose_tokens=late).logits[:, :-1]
            labels = late.shorten(labels)[:, 1:]
        self._lengths(rows)
        self._losses(questions, [row.count(IMAGE_TOKEN_INDEX) for row in rows], [False] * len(rows))
        return score_rows(logits, labels)

    def _losses(self, questions: Sequence[Question], images: list[int], ended: list[bool]) -> list[dict[str, Any]]:
        """What the last call lost of every question; adds it up."""
        cut = getattr(self.model.last_prune, "cut", None) or [0] * len(questions)
        over = query_overflow(self.model, [lmms_query(question.text) for question in questions])
        missed = [placeholders_lost(question.text, count) for question, count in zip(questions, images, strict=True)]
        names = ("cut", "placeholders", "query_cut", "unfinished")
        rows = [noted(dict(zip(names, row, strict=True))) for row in zip(cut, missed, over, ended, strict=True)]
        self.lost.update(name for row in rows for name in row)
        return rows

    def _said(self, user: str, answer: str) -> str:
        """The prompt of one exchange, with the separator that ends an answer; the template brings its own space."""
        conversation = conv_templates[self.conv_template].copy()
        conversation.append_message(conversation.roles[0], user)
        conversation.append_message(conversation.roles[1], answer.strip())
        return conversation.get_prompt()

    def _shown(self, questions: Sequence[Question]) -> tuple[list[str], dict[str, Any]]:
        """What the user says in each question, and the images of all of them as keywords of ``generate``."""
        visuals = [question.load_visuals() for question in questions]
        for question, images in zip(questions, visuals, strict=True):
            if foreign := [type(image).__name__ for image in images if not isinstance(image, Image.Image)]:
                raise ValueError(f"{question.name} shows {foreign[0]}: llava_pruned reads images alone; see vlm_pruned")
        mark = image_token(self.model.config)
        users = [
            with_images(question.text, len(images)).replace(DEFAULT_IMAGE_TOKEN, mark)
            for question, images in zip(questions, visuals, strict=True)
        ]
        images = [image for images in visuals for image in images]
        if not images:
            return users, {}
        pixels = [process_images([image], self.image_processor, self.model.config)[0] for image in images]
        pixels = [tensor.to(self.model.device, self.model.dtype) for tensor in pixels]
        return users, {"images": stack_images(pixels), "image_sizes": [image.size for image in images]}

    def _lengths(self, rows: Sequence[list[int]]) -> list[int]:
        """The number of tokens the language model has just read of every prompt; adds up the visual ones."""
        images = [row.count(IMAGE_TOKEN_INDEX) for row in rows]
        record = self.model.last_prune if any(images) else None
        kept = iter(record.visual_tokens if record else [])
        lengths = [len(row) - count + sum(islice(kept, count)) for row, count in zip(rows, images, strict=True)]
        if record:
            self.visual_tokens["images"] += len(record.visual_tokens)
            self.visual_tokens["kept"] += sum(record.visual_tokens)
            self.visual_tokens["before"] += sum(record.tokens_before)
        return lengths

    def _tokens(self, prompt: str) -> list[int]:
        return tokenizer_image_token(prompt, self.tokenizer)
