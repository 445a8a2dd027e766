"""Questions, batches of them, and decoding options, as lmms-eval states them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from PIL import Image

from llava.asking.decoding import check_decoding
from llava.asking.losses import without_placeholders
from llava.constants import DEFAULT_IMAGE_TOKEN

Result = TypeVar("Result")

MAX_NEW_TOKENS = 1024
PASSED_ON = (
    *("temperature", "top_p", "top_k", "num_beams", "max_new_tokens", "min_new_tokens"),
    *("repetition_penalty", "length_penalty", "no_repeat_ngram_size", "early_stopping"),
)
"""Generation settings of a task that reach ``generate`` under their own names."""
UNNAMED_STOP = "\n\n"
"""The stop string that lmms-eval gives to tasks that name none; its wrappers of LLaVA and Qwen do not stop there."""


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


@dataclass(frozen=True)
class Reply:
    """An answer, with the number of tokens the language model read (kept visual tokens included) and wrote.

    Args:
        lost: what was lost on the way, by the names of ``llava.asking.losses``.
    """

    text: str
    prompt_tokens: int
    new_tokens: int
    lost: Mapping[str, Any] = field(default_factory=dict)


def question_of(args: tuple, documents: Mapping[str, Mapping[str, Any]]) -> Question:
    """Read the arguments of a request, of ``generate_until`` or of ``loglikelihood``.

    Args:
        args: (text, generation settings or continuation or the continuation's rule, rule of the visuals, document,
            task, split); text and continuation alone where nothing is shown.
        documents: the data sets of the tasks, task by task and split by split.
    """
    text, second, *rest = args
    if not rest:
        return Question(text, continuation=second)
    rule, doc_id, task, split = rest
    documents_of_split, name = documents[task][split], f"{task}, document {doc_id}"

    def load_visuals() -> list[Any]:
        return flat(rule(documents_of_split[doc_id]))

    if isinstance(second, Mapping):
        return Question(text, load_visuals, name, generation=second)
    continuation = second(documents_of_split[doc_id]) if callable(second) else second
    return Question(text, load_visuals, name, continuation=str(continuation))


def flat(visuals: Any) -> list[Any]:
    """The visuals of a document: without None, and without the lists that some tasks put around several images."""
    found: list[Any] = []
    for visual in visuals or []:
        images = isinstance(visual, list | tuple) and all(isinstance(each, Image.Image) for each in visual)
        found += visual if images else [] if visual is None else [visual]
    return found


def batches(questions: Sequence[Question], size: int) -> Iterator[list[int]]:
    """Indices of up to ``size`` questions with the same generation settings, the longest questions first.

    Questions of like length pad little, and a batch that does not fit into memory shows at the start.
    """
    groups: dict[str, list[int]] = {}
    for index, question in enumerate(questions):
        groups.setdefault(repr(sorted(question.generation.items())), []).append(index)
    for group in groups.values():
        group.sort(key=lambda index: -len(questions[index].text))
        yield from (group[start : start + size] for start in range(0, len(group), size))


def in_batches(
    questions: Sequence[Question],
    size: int,
    respond: Callable[[list[Question]], Sequence[Result]],
    tick: Callable[[int], Any] = lambda count: None,
) -> list[Result]:
    """Call ``respond`` batch by batch, and ``tick`` with the size of each; the results come in the questions' order."""
    results: dict[int, Result] = {}
    for batch in batches(questions, size):
        results |= zip(batch, respond([questions[index] for index in batch]), strict=True)
        tick(len(batch))
    return [results[index] for index in range(len(questions))]


def decoding(generation: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of ``generate`` for a task's generation settings: greedy unless these have a temperature above 0.

    Raises:
        ValueError: a setting that is read is out of its bounds.
    """
    passed = {key: generation[key] for key in PASSED_ON if generation.get(key) is not None}
    temperature = check_decoding({"temperature": passed.pop("temperature", 0)})["temperature"]
    options = {"max_new_tokens": MAX_NEW_TOKENS, "num_beams": 1, "use_cache": True} | passed
    if temperature > 0 and generation.get("do_sample", True):
        return options | check_decoding(options) | {"do_sample": True, "temperature": temperature}
    sampling = ("top_p", "top_k")  # greedy decoding does not read them, and tasks leave any value there
    options = {key: value for key, value in options.items() if key not in sampling}
    return options | check_decoding(options) | {"do_sample": False}


def ignored(generation: Mapping[str, Any]) -> list[str]:
    """Names of the generation settings that nothing here reads."""
    return sorted(set(generation) - {*PASSED_ON, "do_sample", "until"})


def stops(generation: Mapping[str, Any]) -> list[str]:
    """The strings at which an answer ends, without the one that stands for none."""
    until = generation.get("until") or []
    return [stop for stop in ([until] if isinstance(until, str) else until) if stop and stop != UNNAMED_STOP]


def cut(text: str, stops: Sequence[str]) -> str:
    """An answer up to the first of ``stops`` in it."""
    return text[: min((text.index(stop) for stop in stops if stop in text), default=len(text))]


def with_images(text: str, count: int) -> str:
    """A question that shows ``count`` images: where its ``<image>`` stand if it has that many, else in front."""
    if text.count(DEFAULT_IMAGE_TOKEN) == count:
        return text
    text = without_placeholders(text)[0].strip()
    return f"{' '.join([DEFAULT_IMAGE_TOKEN] * count)}\n{text}" if count else text


def placeholders_lost(text: str, count: int, *others: str) -> int:
    """How many placeholders of a question that shows ``count`` images stand for none; those of ``others`` never do."""
    return max(0, without_placeholders(text, *others)[1] - count)
