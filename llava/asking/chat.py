"""A conversation of several turns about what was shown at its beginning, with a model of either format."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from llava.asking.batch import generation_options
from llava.asking.images import visuals_of
from llava.asking.limit import naming_question
from llava.asking.losses import without_placeholders
from llava.asking.questions import Answer, text_asked
from llava.pruners import Pruner
from llava.records import InputError
from llava.selecting.options import AS_SET, PruningOptions

Show = Callable[[str], Any]
"""Called with every piece of an answer as it comes."""


def without_marks(query: str) -> str:
    """A turn without the text that stands for an image: a turn that says ``<image>`` shows no second one."""
    return without_placeholders(query)[0]


class History(ABC):
    """The turns of a conversation so far, as the model reads them.

    Attributes:
        stop: text at which an answer ends; "" if nothing ends it but the model.
        names: what the two sides are called.
    """

    stop: str = ""
    names: tuple[str, str] = ("user", "assistant")

    @abstractmethod
    def item(self, question: str) -> Any:
        """The turns and a further question, as ``answer_items`` takes it."""

    @abstractmethod
    def add(self, question: str, answer: str) -> None:
        """Note a turn."""

    @abstractmethod
    def text(self) -> str:
        """All that was said, as the prompt has it."""


class Chat:
    """A conversation, from ``Model.chat``; the model sees the image anew, and prunes for the question, at every turn.

    Attributes:
        model: answers; another conversation may ask it at the same time.
        history: the turns as the model reads them.
        turns: the questions so far, each with its ``Answer``.
    """

    def __init__(self, model: Any, image: Any = None):
        self.model, self.history = model, model.history(visuals_of(image))
        self.turns: list[tuple[str, Answer]] = []
        self._pruning: PruningOptions | None = AS_SET

    @property
    def options(self) -> PruningOptions:
        """How the next turn is pruned: as ``prune`` said, else as the model is set."""
        return self.model.options.brought(self._pruning)

    def prune(self, pruner: str | Pruner | None, **options: Any) -> None:
        """Prune from the next turn on as this says, in this conversation alone; None prunes nothing.

        Args:
            pruner, options: as of ``Model.prune``.

        Raises:
            TypeError, ValueError: as ``Model.prune``, or what the model can only be loaded with, such as a
                ``prune_layer``; the conversation goes on as before.
        """
        named = "none" if pruner is None else pruner
        asked = self.model.of_call({"pruner": named, **options} if options or pruner is not None else None)
        self.model.options.brought(asked)
        self._pruning = asked

    def ask(
        self,
        question: str,
        show: Show | None = None,
        pruning: PruningOptions | Mapping[str, Any] | None = AS_SET,
        **generation: Any,
    ) -> Answer:
        """Answer the next question; an error leaves the conversation as it was.

        Args:
            show: called with each piece of the answer as it comes.
            pruning: for this turn alone, as of ``Model.answer``.
            generation: what ``generation_options`` takes; greedy unless it says otherwise.

        Raises:
            TypeError, ValueError: as ``Model.answer``.
            InputError: a question that asks nothing, or for which the conversation has become too long.
        """
        asked = without_marks(text_asked(question))
        if not asked.strip():
            raise InputError("the question is empty")
        pruning = self._pruning if pruning is AS_SET else pruning
        with naming_question([question]):
            items, options = [self.history.item(asked)], generation_options(**generation)
            (answer,) = self.model.answer_items(items, options, show, self.history.stop, pruning=pruning, whole=True)
        self.history.add(asked, without_marks(answer.text))
        self.turns.append((question, answer))
        return answer
