"""Checkpoints in LLaVA's format: questions in, answers and likelihoods out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from llava.asking.batch import left_pad, pad_token_id, stack_images
from llava.asking.chat import History
from llava.asking.images import refuse_foreign
from llava.asking.likelihood import common_prefix, score_rows
from llava.asking.model import Model, Read, Show
from llava.asking.prompts import (
    first_turn,
    image_token,
    lmms_query,
    place_images,
    placeholders_lost,
    user_query,
    with_images,
)
from llava.asking.questions import Question
from llava.asking.stream import streaming
from llava.constants import DEFAULT_IMAGE_TOKEN, IGNORE_INDEX, IMAGE_PLACEHOLDER, IMAGE_TOKEN_INDEX
from llava.conversation import Conversation, conv_templates
from llava.mm_utils import process_images, tokenizer_image_token
from llava.pruners import Pruner
from llava.pruners.cues import CLIP_TEXT_CUES
from llava.selecting.options import AS_SET, NATIVE, PruningOptions


@dataclass(frozen=True)
class Item:
    """A question as the model reads it.

    Args:
        ids: the prompt (L,), ``IMAGE_TOKEN_INDEX`` for every image.
        pixels: of each image, (3, H, W), or (tiles, 3, H, W) under anyres.
        sizes: of each image, width and height in pixels.
        query: what relevance-based pruners compare with the images.
        lost: what was lost of the question already, by the names of ``llava.asking.losses``.
    """

    ids: Tensor
    pixels: Sequence[Tensor] = ()
    sizes: Sequence[tuple[int, int]] = ()
    query: str = ""
    lost: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Preparer:
    """Turns prompts and images into what a model reads, without its weights: processes of workers have one each."""

    tokenizer: Any
    image_processor: Any
    config: Any
    conv_mode: str

    def encode(self, prompt: str) -> Tensor:
        """The ids of a whole prompt, (L,); its ``<image>`` become ``IMAGE_TOKEN_INDEX``."""
        prompt = prompt.replace(DEFAULT_IMAGE_TOKEN, image_token(self.config))
        ids: Any = tokenizer_image_token(prompt, self.tokenizer, IMAGE_TOKEN_INDEX, return_tensors="pt")
        return ids

    def turn(self, user: str, answer: str | None = None) -> Tensor:
        """The ids of the first turn of a conversation, waiting for the answer or with it."""
        return self.encode(first_turn(user, self.conv_mode, answer))

    def pixels(self, image: Image.Image) -> Tensor:
        """(3, H, W), or (tiles, 3, H, W) under anyres."""
        return process_images([image], self.image_processor, self.config)[0]

    def item(self, user: str, images: Sequence[Image.Image], query: str, lost: Mapping[str, int]) -> Item:
        """A first turn that holds an ``<image>`` for each of ``images``."""
        sizes = [image.size for image in images]
        return Item(self.turn(user), [*map(self.pixels, images)], sizes, query, lost)


class LlavaHistory(History):
    """A conversation by a template of LLaVA's; answers stand in it without the separator that follows them.

    Args:
        preparer: of the model.
        images: what the conversation is about, prepared once.
        device, dtype: of the model.
    """

    def __init__(self, preparer: Preparer, images: Sequence[Image.Image], device: torch.device, dtype: torch.dtype):
        self.preparer, self.sizes = preparer, [image.size for image in images]
        self.pixels = [preparer.pixels(image).to(device, dtype) for image in images]
        self.conversation = conv_templates[preparer.conv_mode].copy()
        self.stop = self.conversation.sep2 or self.conversation.sep
        user, assistant = (role.removeprefix("<|im_start|>").strip() for role in self.conversation.roles)
        self.names = user or "user", assistant or "assistant"
        self._begun = False

    def item(self, question: str) -> Item:
        return Item(
            self.preparer.encode(self._with(question, None).get_prompt()),
            self.pixels,
            self.sizes,
            user_query(question),
        )

    def add(self, question: str, answer: str) -> None:
        self.conversation, self._begun = self._with(question, answer), True

    def text(self) -> str:
        return self.conversation.get_prompt()

    def _with(self, question: str, answer: str | None) -> Conversation:
        """The conversation with a further turn, the images in front if it is the first one."""
        shown = "" if self._begun else f"{DEFAULT_IMAGE_TOKEN}\n" * len(self.pixels)
        conversation = self.conversation.copy()
        conversation.append_message(conversation.roles[0], shown + question)
        conversation.append_message(conversation.roles[1], answer)
        return conversation


class LlavaModel(Model):
    """A LLaVA checkpoint that answers batches of questions.

    Args:
        name, tokenizer, model: see ``Model``; the model of one of LLaVA's own classes.
        image_processor: of the checkpoint's encoder.
        conv_mode: conversation template of questions that bring none of their own.
    """

    host = NATIVE

    def __init__(self, name: str, tokenizer: Any, model: Any, image_processor: Any, conv_mode: str = "vicuna_v1"):
        super().__init__(name, tokenizer, model)
        self.image_processor, self.conv_mode = image_processor, conv_mode

    @property
    def options(self) -> PruningOptions:
        return self.model.pruning

    def prune(self, pruner: str | Pruner | None, **options: Any) -> None:
        self.model.pruning = PruningOptions.of(self.host, pruner="none" if pruner is None else pruner, **options)

    @cached_property
    def preparer(self) -> Preparer:
        """What makes items of questions."""
        return Preparer(self.tokenizer, self.image_processor, self.model.config, self.conv_mode)

    def item(self, question: Question) -> Item:
        images = question.load_visuals()
        refuse_foreign(images, question.name)
        lost = {"placeholders": placeholders_lost(question.text, len(images))}
        return self.preparer.item(with_images(question.text, len(images)), images, lmms_query(question.text), lost)

    def asked(self, question: str, images: Sequence[Any]) -> Item:
        refuse_foreign(images, "the question")
        user = place_images(question, len(images))
        lost = {"placeholders": placeholders_lost(question, len(images), IMAGE_PLACEHOLDER)}
        return self.preparer.item(user, images, user_query(question), lost)

    def history(self, visuals: Sequence[Any]) -> "LlavaHistory":
        refuse_foreign(visuals, "the conversation")
        return LlavaHistory(self.preparer, visuals, self.model.device, self.model.dtype)

    def _generate(
        self, items: Sequence[Item], generation: Mapping[str, Any], show: Show | None, stop: str, pruning: Any
    ) -> tuple[Tensor, Read]:
        pad, device = pad_token_id(self.tokenizer), self.model.device
        ids, mask = left_pad([item.ids for item in items], pad)
        ids = ids.to(device)
        output = self.model.generate(
            ids,
            attention_mask=mask.to(device),
            **self._images(items),
            texts=[item.query for item in items],
            pad_token_id=pad,
            **(streaming(self.tokenizer, ids, show, stop) if show else {}),
            **({} if pruning is AS_SET else {"pruning": pruning}),
            **generation,
        )
        return output, self._read(items, pruning)

    @torch.inference_mode()
    def score(self, questions: Sequence[Question]) -> list[tuple[float, bool]]:
        items, rows, targets = [*map(self.item, questions)], [], []
        for item, question in zip(items, questions, strict=True):
            user = with_images(question.text, len(item.pixels))
            rows.append(self.preparer.turn(user, question.ending))
            known = common_prefix(item.ids.tolist(), rows[-1].tolist())
            targets.append(torch.where(torch.arange(len(rows[-1])) < known, IGNORE_INDEX, rows[-1]))
        ids, mask = left_pad(rows, pad_token_id(self.tokenizer))
        labels, _ = left_pad(targets, IGNORE_INDEX)
        ids, mask, labels = (tensor.to(self.model.device) for tensor in (ids, mask, labels))
        images = self._images(items)
        _, positions, mask, _, embeds, labels, late = self.model.prepare_with_choice(
            ids, None, mask, None, labels, images["images"], images["image_sizes"], [item.query for item in items]
        )
        inputs = {"input_ids": ids} if embeds is None else {"inputs_embeds": embeds}
        inputs |= {"attention_mask": mask, "position_ids": positions}
        if late is None:
            scored = (labels != IGNORE_INDEX).any(dim=0).nonzero().flatten()
            logits, labels = self.model(**inputs, logits_to_keep=scored - 1).logits, labels[:, scored]
        else:  # which columns will be left is known afterwards
            logits = self.model(**inputs, choose_tokens=late).logits[:, :-1]
            labels = late.shorten(labels)[:, 1:]
        self._noted(items, self._read(items), [False] * len(items))
        return score_rows(logits, labels)

    def _images(self, items: Sequence[Item]) -> dict[str, Any]:
        """The images of a batch as keywords of ``generate``."""
        pixels = [image.to(self.model.device, self.model.dtype) for item in items for image in item.pixels]
        sizes = [size for item in items for size in item.sizes]
        return {"images": stack_images(pixels) if pixels else None, "image_sizes": sizes}

    def _read(self, items: Sequence[Item], pruning: Any = AS_SET) -> Read:
        record, images = getattr(self.model, "last_prune", None), iter(())
        budgets, kept_of = self._budgets(record), self._kept(record)
        if record and any(item.pixels for item in items):
            images = zip(record.visual_tokens, record.newline_tokens, record.tokens_before, strict=True)
            self._add_up(record)
        cut = getattr(record, "cut", None) or [0] * len(items)
        for item, removed, beyond in zip(items, cut, self._overflow(items, pruning), strict=True):
            kept, newlines, before = map(sum, zip((0, 0, 0), *islice(images, len(item.pixels)), strict=True))
            tiles = sum(1 if pixels.ndim == 3 else len(pixels) for pixels in item.pixels)
            counts: dict[str, Any] = {
                "visual_tokens": kept,
                "newline_tokens": newlines,
                "tokens_before": before,
                "tiles": tiles,
            }
            counts["prompt_tokens"] = len(item.ids) - len(item.pixels) + kept
            counts["budgets"] = [*islice(budgets, len(item.pixels))]
            counts["keep"] = tuple(islice(kept_of, len(item.pixels))) or None
            yield counts, {"cut": removed, "query_cut": beyond}

    def _overflow(self, items: Sequence[Item], pruning: Any) -> list[int]:
        """By how many tokens each query is longer than CLIP's text side reads in one piece, where it is asked."""
        options = getattr(self.model, "pruning", None) if pruning is AS_SET else pruning
        asks = options is not None and options.needs & CLIP_TEXT_CUES
        relevance = self.model.get_vision_tower().relevance if asks else None
        if relevance is None:
            return [0] * len(items)
        lengths = {item.query: len(relevance.tokenizer(item.query, verbose=False)["input_ids"]) for item in items}
        return [max(0, lengths[item.query] - relevance.context_length) for item in items]
