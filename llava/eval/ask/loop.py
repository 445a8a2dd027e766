"""The one loop behind every program that asks questions: generate in batches, write each answer with its place."""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import shortuuid
from tqdm import tqdm

from llava.asking.model import Model
from llava.asking.questions import Answer
from llava.eval.ask.answers import WriteAnswer
from llava.eval.ask.dataset import QuestionDataset, QuestionError, Sample, batches
from llava.eval.results.profile import MEMORY, share_of_batch
from llava.model.memory import kv_mb, peak_mb
from llava.model.stages import Stopwatch
from llava.records import InputError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """How answers are made.

    Args:
        model_id: the model's name in every record.
        settings: the part of every record's ``metadata`` that is the same for the whole run.
        generation: keywords of ``generate``, from ``generation_options``.
        batch_size: questions per call of ``generate``; above 1, questions of similar length share a call.
        num_workers: processes that decode images; 0 decodes in this one.
        on_error: ``"stop"`` raises at a question that cannot be asked, as its image is unreadable; ``"skip"`` records
            it and goes on.
        progress: show a progress bar.
        profile: time the stages of every batch but the first, which warms up.
    """

    model_id: str
    settings: dict[str, Any] = field(default_factory=dict)
    generation: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 1
    num_workers: int = 0
    on_error: str = "stop"
    progress: bool = True
    profile: bool = False


def answers(
    dataset: QuestionDataset, model: Model, plan: Run, watch: Stopwatch | None = None
) -> Iterator[tuple[int, Answer | QuestionError, dict[str, Any]]]:
    """Yield the index of every sample with its answer, or the reason why it could not be asked, and what was measured.

    Batches come as ``batches`` makes them, but what the dataset does not call alike is asked apart; what is unreadable
    in a batch comes after its answers.

    Args:
        watch: measures a ``profile``, but of the first batch.
    """

    def respond(read: Sequence[tuple[int, Any]]) -> list[Answer]:
        return model.answer_items([dataset.item(index, each, model) for index, each in read], plan.generation)

    warm = False
    for batch in batches(dataset, plan.batch_size, plan.num_workers):
        alike = defaultdict(list)
        for index, read in batch:
            if not isinstance(read, QuestionError):
                alike[dataset.alike(read)].append((index, read))
        for part in alike.values():
            answered = answered_or_refused(respond, part, [dataset.samples[index].question_id for index, _ in part])
            profile = None if watch is None else share_of_batch(*watch.lap(), len(answered))
            for (index, read), answer in zip(part, answered, strict=True):
                found = measured(dataset, read, answer)
                if warm and profile is not None and found:
                    found["profile"] = profile | held(model.model, answer)
                yield index, answer, found
            warm = True
        yield from ((index, read, {}) for index, read in batch if isinstance(read, QuestionError))


def measured(dataset: QuestionDataset, read: Any, answer: Answer | QuestionError) -> dict[str, Any]:
    """What an answer's ``metadata`` say of it alone."""
    if isinstance(answer, QuestionError):
        return {}
    return dataset.measured(read, answer) | {"latency_ms": round(1000 * answer.seconds, 2)}


def held(model: Any, answer: Answer) -> dict[str, float]:
    """What an answer took of memory, by the names of ``MEMORY``: its visual tokens alone, and all that there was."""
    first, layers = model.pruning.prune_layer, model.config.num_hidden_layers
    tokens = (first * answer.tokens_before + (layers - first) * answer.visual_tokens) / layers
    return dict(zip(MEMORY, (round(kv_mb(model, tokens), 3), round(peak_mb(model.device), 1)), strict=True))


def answered_or_refused(
    respond: Callable[[Sequence[Any]], Sequence[Any]], items: Sequence[Any], names: Sequence[int | str]
) -> list[Any]:
    """Answer a batch; where the model refuses it, every question alone, so that one costs no other its answer.

    Args:
        respond: answers a batch, or raises ValueError.
        names: the ``question_id`` of every item.

    Returns:
        What ``respond`` says of each item, or a ``QuestionError``.
    """
    try:
        return list(respond(items))
    except ValueError as error:
        if len(items) == 1:
            return [QuestionError(f"question {names[0]!r} cannot be asked: {error}")]
    alone = zip(items, names, strict=True)
    return [answer for item, name in alone for answer in answered_or_refused(respond, [item], [name])]


def run(dataset: QuestionDataset, model: Model, plan: Run, write: WriteAnswer) -> float:
    """Answer every question of ``dataset`` and hand each line to ``write``, with the question's index in the dataset.

    With a batch size of 1 the lines come in question order. Greedy answers in float32 depend neither on the batch size
    nor on which questions share a batch.

    Returns:
        Questions per second, decoding and writing included.

    Raises:
        InputError: a question that cannot be asked under ``on_error="stop"``, after every answer computed so far is
            written.
    """
    start, answered, visual_tokens = time.perf_counter(), 0, 0
    bar = tqdm(total=len(dataset), unit=dataset.unit, desc=plan.model_id, leave=None, disable=not plan.progress)
    with bar as progress, Stopwatch(model.model) if plan.profile else nullcontext() as watch:
        for index, result, metadata in answers(dataset, model, plan, watch):
            if isinstance(result, Answer):
                answered, visual_tokens = answered + 1, visual_tokens + result.visual_tokens
                progress.set_postfix(visual_tokens=f"{visual_tokens / answered:.1f}", refresh=False)
            elif plan.on_error == "stop":
                raise refusal(result) from result
            write(index, record(dataset.samples[index], result, plan, metadata))
            progress.update()
    return len(dataset) / (time.perf_counter() - start)


def refusal(error: QuestionError) -> InputError:
    """What ends a run at a question that cannot be asked."""
    return InputError(f"{error}; the answers so far are saved, and a rerun continues here (--on-error skip goes on)")


def record(sample: Sample, result: Answer | QuestionError, plan: Run, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """One line of the answers file, with LLaVA's keys in LLaVA's order."""
    text, lost = (result.text, result.lost) if isinstance(result, Answer) else ("", {})
    metadata = metadata if isinstance(result, Answer) else {"error": str(result)}
    return {
        **sample.line(text),
        "answer_id": shortuuid.uuid(),
        "model_id": plan.model_id,
        "metadata": {**metadata, **sample.losses(), **lost, **plan.settings},
    }
