"""What every loaded model does, whichever format it has: questions become items, and items answers."""

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from llava.asking.batch import generation_options, pad_token_id, unfinished
from llava.asking.losses import noted
from llava.asking.questions import Answer, Question, in_batches

Show = Callable[[str], Any]
"""Called with every piece of an answer as it comes."""
Read = Iterator[tuple[dict[str, Any], dict[str, Any]]]
"""What a call read of every item, by the names of ``Answer``, and lost of it, by those of ``llava.asking.losses``."""


class Model(ABC):
    """A checkpoint that answers.

    Args:
        name: what answers call it.
        tokenizer: of the checkpoint.
        model: the network, with ``generate``.

    Attributes:
        visual_tokens: of all images and videos so far: ``images``, ``kept`` and ``before`` pruning.
        lost: how many questions so far lost something, by the names of ``llava.asking.losses``.
    """

    def __init__(self, name: str, tokenizer: Any, model: Any):
        self.name, self.tokenizer, self.model = name, tokenizer, model
        self.visual_tokens: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()

    @abstractmethod
    def item(self, question: Question) -> Any:
        """A question as the model reads it.

        Raises:
            ValueError: it shows what the model does not read; names the question.
        """

    @abstractmethod
    def asked(self, question: str, shown: Any) -> Any:
        """What a person asks about what they show, as the model reads it; ``shown`` as ``visuals_of`` takes it."""

    @abstractmethod
    def score(self, questions: Sequence[Question]) -> list[tuple[float, bool]]:
        """The loss of every question's continuation, and whether it is what greedy decoding says."""

    @abstractmethod
    def _generate(
        self, items: Sequence[Any], generation: Mapping[str, Any], show: Show | None, stop: str
    ) -> tuple[Tensor, Read]:
        """The new ids (B, L) of a batch, and what was read, which is looked at only when it is asked for."""

    @torch.inference_mode()
    def answer_items(
        self, items: Sequence[Any], generation: Mapping[str, Any], show: Show | None = None, stop: str = ""
    ) -> list[Answer]:
        """Answer a batch in one call of ``generate``.

        Args:
            items: from ``item``.
            generation: keywords of ``generate``, from ``generation_options``.
            show: called with the pieces of the answer, of a batch of one.
            stop: text at which an answer ends; no part of it.
        """
        if not items:
            return []
        start = time.perf_counter()
        output, read = self._generate(items, generation, show, stop)
        texts = self.tokenizer.batch_decode(output, skip_special_tokens=True)
        seconds = (time.perf_counter() - start) / len(items)
        written = (output != pad_token_id(self.tokenizer)).sum(dim=1).tolist()
        rows = self._noted(items, read, unfinished(output, self.model, self.tokenizer, generation))
        return [
            Answer((text.partition(stop)[0] if stop else text).strip(), new_tokens=new, seconds=seconds, **row)
            for text, new, row in zip(texts, written, rows, strict=True)
        ]

    def answers(self, questions: Sequence[Question], batch_size: int = 1, **generation: Any) -> list[Answer]:
        """Answer questions, ``batch_size`` in a call, in their order; greedily unless ``generation`` says otherwise.

        ``generation`` is what ``generation_options`` takes.
        """
        options = generation_options(**generation)
        return in_batches(questions, batch_size, lambda batch: self.answer_items([*map(self.item, batch)], options))

    def answer(self, image: Any, question: str, *, show: Show | None = None, **generation: Any) -> Answer:
        """Answer a question about an image, several, or None; greedily unless ``generation`` says otherwise.

        Args:
            image: a file, an http(s) address, a PIL image, an array (H, W, 3) of 8 bits, or a list of these.
            generation: what ``generation_options`` takes.
        """
        options = generation_options(**generation)
        return self.answer_items([self.asked(question, image)], options, show)[0]

    def _noted(self, items: Sequence[Any], read: Read, ended: Sequence[bool]) -> list[dict[str, Any]]:
        """What was read and lost of every item, as keywords of ``Answer``; adds the losses up."""
        rows = []
        for item, (counts, lost), cut_short in zip(items, read, ended, strict=True):
            rows.append(counts | {"lost": noted({**item.lost, **lost, "unfinished": cut_short})})
            self.lost.update(list(rows[-1]["lost"]))
        return rows

    def _budgets(self, record: Any) -> Iterator[dict[str, Any]]:
        """What each image of a call was given where that depends on what it shows; nothing where it does not."""
        return (budget.described() for budget in getattr(record, "budgets", None) or ())

    def _add_up(self, record: Any) -> None:
        kept, before = record.visual_tokens, record.tokens_before
        self.visual_tokens.update(images=len(kept), kept=sum(kept), before=sum(before))
