"""What every loaded model does, whichever format it has: questions become items, and items answers."""

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from llava.asking.batch import generation_options, pad_token_id, positive, unfinished
from llava.asking.chat import Chat, History, Show
from llava.asking.images import visuals_of
from llava.asking.limit import naming_question
from llava.asking.losses import noted
from llava.asking.questions import Answer, Question, Shown, as_asked, in_batches, text_asked
from llava.pruners import Pruner
from llava.selecting.options import AS_SET, NATIVE, PruningOptions

Read = Iterator[tuple[dict[str, Any], dict[str, Any]]]
"""What a call read of every item, by the names of ``Answer``, and lost of it, by those of ``llava.asking.losses``."""


class Model(ABC):
    """A checkpoint that answers; several threads may ask at the same time.

    Args:
        name: what answers call it.
        tokenizer: of the checkpoint.
        model: the network, with ``generate``.

    Attributes:
        visual_tokens: of all images and videos so far: ``images``, ``kept`` and ``before`` pruning.
        lost: how many questions so far lost something, by the names of ``llava.asking.losses``.
    """

    host: ClassVar[str]
    """Whose options of pruning it reads, ``NATIVE`` or ``HOSTED`` of ``llava.selecting.options``."""

    def __init__(self, name: str, tokenizer: Any, model: Any):
        self.name, self.tokenizer, self.model = name, tokenizer, model
        self.visual_tokens: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()

    def __repr__(self) -> str:
        said = self.options.describe()
        kept = ", ".join(f"{name}={value}" for name, value in {**said["options"], **said["run"]}.items())
        return f"<{type(self).__name__} {self.name}, pruner {' '.join(filter(None, [said['pruner'], kept]))}>"

    @abstractmethod
    def item(self, question: Question) -> Any:
        """A question as the model reads it.

        Raises:
            ValueError: it shows what the model does not read; names the question.
        """

    @abstractmethod
    def asked(self, question: str, visuals: Sequence[Any]) -> Any:
        """What a person asks about what they show, of ``visuals_of``, as the model reads it; raises as ``item``."""

    @abstractmethod
    def history(self, visuals: Sequence[Any]) -> History:
        """A conversation that is still to begin, about ``visuals`` of ``visuals_of``; raises as ``asked``."""

    @abstractmethod
    def score(self, questions: Sequence[Question]) -> list[tuple[float, bool]]:
        """The loss of every question's continuation, and whether it is what greedy decoding says."""

    @property
    @abstractmethod
    def options(self) -> PruningOptions:
        """How calls are pruned that bring no options of their own."""

    @abstractmethod
    def prune(self, pruner: str | Pruner | None, **options: Any) -> None:
        """Prune from now on as this says, in place of what was said before; None prunes nothing.

        It is for all threads: of a model in Transformers' format, a call that is under way in another one is an error
        then. For one call or one conversation, see ``answer`` and ``chat``.

        Args:
            pruner: a name in ``llava.pruners.PRUNERS``, or a pruner.
            options: ``visual_token_num`` or ``keep_ratio``, the pruner's own options, and those of ``PruningOptions``.

        Raises:
            TypeError: an option that nobody reads.
            ValueError: a wrong value, or what this model cannot do; the model prunes as before.
        """

    @abstractmethod
    def _generate(
        self, items: Sequence[Any], generation: Mapping[str, Any], show: Show | None, stop: str, pruning: Any
    ) -> tuple[Tensor, Read]:
        """The new ids (B, L) of a batch, and what was read, which is looked at only when it is asked for."""

    @torch.inference_mode()
    def answer_items(
        self,
        items: Sequence[Any],
        generation: Mapping[str, Any],
        show: Show | None = None,
        stop: str = "",
        pruning: PruningOptions | Mapping[str, Any] | None = AS_SET,
        whole: bool = False,
    ) -> list[Answer]:
        """Answer a batch in one call of ``generate``.

        Args:
            items: from ``item``.
            generation: keywords of ``generate``, from ``generation_options``.
            show: called with the pieces of the answer, of a batch of one.
            stop: text at which an answer ends; no part of it.
            pruning: of this call alone, see ``answer``.
            whole: refuse a prompt that is over the model's limit, which LLaVA cuts at its end.

        Raises:
            PromptTooLong: such a prompt.
        """
        if not items:
            return []
        pruning = self.of_call(pruning)
        start = time.perf_counter()
        generation = {**generation, "cut": False} if whole and self.host == NATIVE else generation
        output, read = self._generate(items, generation, show, stop, pruning)
        texts = self.tokenizer.batch_decode(output, skip_special_tokens=True)
        seconds = (time.perf_counter() - start) / len(items)
        written = (output != pad_token_id(self.tokenizer)).sum(dim=1).tolist()
        rows = self._noted(items, read, unfinished(output, self.model, self.tokenizer, generation))
        return [
            Answer((text.partition(stop)[0] if stop else text).strip(), new_tokens=new, seconds=seconds, **row)
            for text, new, row in zip(texts, written, rows, strict=True)
        ]

    def answers(
        self,
        questions: Sequence[Question | tuple[Any, str]],
        batch_size: int = 1,
        *,
        pruning: PruningOptions | Mapping[str, Any] | None = AS_SET,
        **generation: Any,
    ) -> list[Answer]:
        """Answer questions, ``batch_size`` in a call, in their order; greedily unless ``generation`` says otherwise.

        Args:
            questions: pairs (image, question), as ``answer`` takes them, or each a ``Question``.
            pruning, generation: as of ``answer``.

        Raises:
            TypeError, ValueError: as ``answer``.
        """
        options, pruning = generation_options(**generation), self.of_call(pruning)
        known = [as_asked(question, place) for place, question in enumerate(questions)]

        def respond(batch: Sequence[Question | Shown]) -> list[Answer]:
            with naming_question([question.text for question in batch]):
                return self.answer_items([*map(self._item_of, batch)], options, pruning=pruning, whole=True)

        return in_batches(known, positive("batch_size", batch_size), respond)

    def answer(
        self,
        image: Any,
        question: str,
        *,
        show: Show | None = None,
        pruning: PruningOptions | Mapping[str, Any] | None = AS_SET,
        **generation: Any,
    ) -> Answer:
        """Answer a question about an image, several, or None; greedily unless ``generation`` says otherwise.

        Args:
            image: a file, an http(s) address, a PIL image, an array (H, W, 3) of 8 bits, or a list of these; photos are
                turned as their EXIF says. For Transformers' models of videos, also a clip: its file, its frames
                (T, H, W, 3), or ``llava.asking.conversations.Video``.
            show: called with each piece of the answer as it comes.
            pruning: for this call alone: ``PruningOptions``, the keywords of ``prune`` in a mapping, such as
                ``{"pruner": "divprune", "visual_token_num": 36}``, or None for a call without pruning.
            generation: what ``generation_options`` takes.

        Raises:
            TypeError, ValueError: a question that is no text; and as ``prune``, of what is brought to this call.
            InputError: an image that cannot be read; a prompt over the model's limit, which would lose its end.
        """
        options, pruning = generation_options(**generation), self.of_call(pruning)
        with naming_question([text_asked(question)]):
            item = self.asked(question, visuals_of(image))
            return self.answer_items([item], options, show, pruning=pruning, whole=True)[0]

    def chat(self, image: Any = None) -> Chat:
        """Begin a conversation about an image, a clip, several, or nothing; ``image`` as of ``answer``.

        Raises:
            InputError, ValueError: what is shown cannot be read.
        """
        return Chat(self, image)

    def of_call(self, pruning: Any) -> PruningOptions | None:
        """What a call is told of its pruning as options, ``AS_SET`` where it is told nothing."""
        if pruning is AS_SET or pruning is None or isinstance(pruning, PruningOptions):
            return pruning
        if isinstance(pruning, Mapping):
            return PruningOptions.of(self.host, **pruning)
        kind = type(pruning).__name__
        raise TypeError(f'pruning must be PruningOptions, None or a mapping such as {{"pruner": ...}}, not {kind}')

    def _item_of(self, question: Question | Shown) -> Any:
        if isinstance(question, Question):
            return self.item(question)
        return self.asked(question.text, visuals_of(question.shown))

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

    def _kept(self, record: Any) -> Iterator[Tensor]:
        """A copy of what was kept of each image of a call, on the CPU; nothing where nothing was pruned."""
        with torch.inference_mode(False):  # tensors that may be changed anywhere
            yield from [positions.cpu().clone() for positions in getattr(record, "keep", None) or ()]

    def _add_up(self, record: Any) -> None:
        kept, before = record.visual_tokens, record.tokens_before
        self.visual_tokens.update(images=len(kept), kept=sum(kept), before=sum(before))
