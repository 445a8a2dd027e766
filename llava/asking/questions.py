"""Questions, batches of them, and decoding options, as lmms-eval states them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

Result = TypeVar("Result")


@dataclass(frozen=True)
class Question:
    """One question, or one request of lmms-eval.

    Args:
        text: what the task asks, ``<image>`` in it where the task says so.
        load_visuals: reads what is shown: PIL images, paths of videos, arrays of frames, ``conversations.Video``.
        name: task and document, for errors.
        generation: the task's generation settings; empty for a question with a given continuation.
        continuation: the answer whose likelihood is asked for; None for a question to be answered.
    """

    text: str
    load_visuals: Callable[[], list[Any]] = list
    name: str = "a question"
    generation: Mapping[str, Any] = field(default_factory=dict)
    continuation: str | None = None

    @property
    def ending(self) -> str:
        """The continuation without the blanks around it; ValueError where there is none, and so no likelihood."""
        if self.continuation is None:
            raise ValueError(f"{self.name} has no continuation whose likelihood could be asked for")
        return self.continuation.strip()


class Shown(NamedTuple):
    """What a person asks about what they show; ``shown`` as ``visuals_of`` takes it."""

    text: str
    shown: Any = None
    generation: Mapping[str, Any] = {}


def as_asked(question: Any, place: int) -> Question | Shown:
    """A ``Question`` as it is, and a pair of an image and a question as what a person asks.

    Raises:
        TypeError: it is neither; names its ``place`` in the list, from 0.
    """
    if isinstance(question, Question):
        return question
    pair = isinstance(question, Sequence) and len(question) == 2 and not isinstance(question, str)
    if not pair or not isinstance(question[1], str):
        raise TypeError(f"questions[{place}] must be a pair (image, question) or a Question, not {question!r:.80}")
    return Shown(question[1], question[0])


def text_asked(question: Any) -> str:
    """A question of a person, which is text; TypeError where it is none."""
    if not isinstance(question, str):
        raise TypeError(f"question must be text, not {question!r:.80}")
    return question


@dataclass(frozen=True, repr=False)
class Answer:
    """What a model said, and how many tokens it read and wrote; none of an image where there is none.

    ``str`` of it is the text.

    Args:
        text: the decoded answer, stripped.
        visual_tokens: visual tokens the language model read, newline tokens included.
        newline_tokens: how many of those are newline tokens.
        tokens_before: visual tokens before pruning.
        tiles: encoder tiles of the images, of LLaVA's own format.
        prompt_tokens: all tokens the language model read.
        new_tokens: those it wrote.
        seconds: wall time of the batch divided by its size.
        lost: what was lost on the way, by the names of ``llava.asking.losses``.
        budgets: what each image was given where that depends on what it shows, as ``Budget.described`` says it.
        keep: per image or video, the positions (K,) of its sequence that were kept, ascending, on the CPU; None where
            nothing was pruned. A copy, which no other call changes.
    """

    text: str
    visual_tokens: int = 0
    newline_tokens: int = 0
    tokens_before: int = 0
    tiles: int = 0
    prompt_tokens: int = 0
    new_tokens: int = 0
    seconds: float = field(default=0.0, compare=False)
    lost: Mapping[str, Any] = field(default_factory=dict)
    budgets: Sequence[Mapping[str, Any]] = ()
    keep: tuple[Tensor, ...] | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        read = f"{self.prompt_tokens} tokens read"
        if self.tokens_before:
            read = f"{self.visual_tokens} of {self.tokens_before} visual tokens, {read}"
        lost = "".join(f", {name}: {value}" for name, value in self.lost.items())
        return f"<Answer {self.text!r}: {read}, {self.new_tokens} written, {self.seconds:.2f} s{lost}>"

    @property
    def dropped(self) -> int:
        """How many visual tokens the language model did not read."""
        return self.tokens_before - self.visual_tokens


def batches(questions: Sequence[Any], size: int) -> Iterator[list[int]]:
    """Indices of up to ``size`` questions with the same generation settings, the longest questions first.

    A question is anything with ``text`` and ``generation``. Questions of like length pad little, and a batch that does
    not fit into memory shows at the start.
    """
    groups: dict[str, list[int]] = {}
    for index, question in enumerate(questions):
        groups.setdefault(repr(sorted(question.generation.items())), []).append(index)
    for group in groups.values():
        group.sort(key=lambda index: -len(questions[index].text))
        yield from (group[start : start + size] for start in range(0, len(group), size))


def in_batches(
    questions: Sequence[Any],
    size: int,
    respond: Callable[[list[Any]], Sequence[Result]],
    tick: Callable[[int], Any] = lambda count: None,
) -> list[Result]:
    """Call ``respond`` batch by batch, and ``tick`` with the size of each; the results come in the questions' order."""
    results: dict[int, Result] = {}
    for batch in batches(questions, size):
        results |= zip(batch, respond([questions[index] for index in batch]), strict=True)
        tick(len(batch))
    return [results[index] for index in range(len(questions))]
