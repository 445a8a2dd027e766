"""The one loop behind every program that asks questions: generate in batches, write each answer with its place."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import shortuuid
import torch
from tqdm import tqdm

from llava.asking.batch import left_pad, pad_token_id, stack_images, unfinished
from llava.asking.losses import count_losses, noted, told
from llava.eval.ask.answers import WriteAnswer
from llava.eval.ask.dataset import Item, QuestionDataset, QuestionError, Sample, batches
from llava.eval.results.profile import share_of_batch
from llava.model.stages import Stopwatch
from llava.pruners.base import CLIP_TEXT_CUES
from llava.records import InputError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """What the model said about one image, and how many tokens it saw of it: none where there is no image.

    Args:
        text: the decoded answer, stripped.
        visual_tokens: visual tokens the language model read, newline tokens included.
        newline_tokens: how many of those are newline tokens.
        tokens_before: visual tokens before pruning.
        tiles: encoder tiles of the image.
        latency_ms: wall time of the batch divided by its size, milliseconds.
        profile: what of it each stage took, by ``llava.eval.results.profile``; None if it was not measured.
        lost: what was lost of prompt, query and answer, by the names of ``llava.asking.losses``.
    """

    text: str
    visual_tokens: int
    newline_tokens: int
    tokens_before: int
    tiles: int
    latency_ms: float
    profile: dict[str, float | None] | None = None
    lost: Mapping[str, Any] = field(default_factory=dict)


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


@torch.inference_mode()
def answer_batch(
    model: Any, tokenizer: Any, items: Sequence[Item], queries: Sequence[str], generation: dict[str, Any]
) -> list[Answer]:
    """Answer questions about one image or none in one call of ``generate``.

    Args:
        items: what ``QuestionDataset`` yields.
        queries: one text per item, for the pruners that read relevance.
        generation: keywords of ``generate``.
    """
    if not items:
        return []
    start = time.perf_counter()
    input_ids, mask = left_pad([prompt for prompt, _, _ in items], pad_token_id(tokenizer))
    pixels = [image.to(model.device, model.dtype) for _, image, _ in items if image is not None]
    output_ids = model.generate(
        input_ids.to(model.device),
        attention_mask=mask.to(model.device),
        images=stack_images(pixels) if pixels else None,
        image_sizes=[size for _, _, size in items if size is not None],
        texts=list(queries),
        pad_token_id=pad_token_id(tokenizer),
        **generation,
    )
    texts = tokenizer.batch_decode(output_ids, skip_special_tokens=True)
    latency_ms = round(1000 * (time.perf_counter() - start) / len(items), 2)
    counts = _token_counts(model.last_prune, items)
    losses = _losses(model, tokenizer, output_ids, queries, generation)
    return [
        Answer(text.strip(), *count, latency_ms, lost=lost)
        for text, count, lost in zip(texts, counts, losses, strict=True)
    ]


def _losses(
    model: Any, tokenizer: Any, output_ids: torch.Tensor, queries: Sequence[str], generation: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """What was lost in a call, row by row."""
    cut = getattr(getattr(model, "last_prune", None), "cut", None) or [0] * len(queries)
    over = query_overflow(model, queries)
    for row in zip(cut, over, unfinished(output_ids, model, tokenizer, generation), strict=True):
        yield noted(dict(zip(("cut", "query_cut", "unfinished"), row, strict=True)))


def warn_of_losses(
    model: Any, tokenizer: Any, output_ids: torch.Tensor, queries: Sequence[str], generation: Mapping[str, Any]
) -> None:
    """Log what was lost of the questions of the last call, for programs that keep no answers."""
    answers = [{"metadata": lost} for lost in _losses(model, tokenizer, output_ids, queries, generation)]
    if lost := told(count_losses(answers)):
        logger.warning("of %d questions %s", len(answers), lost)


def query_overflow(model: Any, queries: Sequence[str]) -> list[int]:
    """By how many tokens each query is longer than CLIP's text side reads in one piece, where the pruner asks it."""
    pruner = getattr(model, "pruner", None)
    relevance = model.get_vision_tower().relevance if pruner is not None and pruner.needs & CLIP_TEXT_CUES else None
    if relevance is None:
        return [0] * len(queries)
    lengths = {query: len(relevance.tokenizer(query, verbose=False)["input_ids"]) for query in queries}
    return [max(0, lengths[query] - relevance.context_length) for query in queries]


def _token_counts(prune: Any, items: Sequence[Item]) -> Iterator[tuple[int, int, int, int]]:
    """Visual tokens, newline tokens, tokens before pruning, and tiles of every item."""
    images = iter(zip(prune.visual_tokens, prune.newline_tokens, prune.tokens_before, strict=True) if prune else ())
    for _, pixels, _ in items:
        tiles = 0 if pixels is None else 1 if pixels.ndim == 3 else len(pixels)
        yield (*(next(images) if tiles else (0, 0, 0)), tiles)


def answers(
    dataset: QuestionDataset, model: Any, tokenizer: Any, plan: Run, watch: Stopwatch | None = None
) -> Iterator[tuple[int, Answer | QuestionError]]:
    """Yield the index of every sample with its answer, or with the reason why it could not be asked.

    Batches come as ``batches`` makes them; what is unreadable in a batch comes after its answers.

    Args:
        watch: gives the answers their ``profile``, those of the first batch aside.
    """
    warm = False
    for batch in batches(dataset, plan.batch_size, plan.num_workers):
        broken = [(index, item) for index, item in batch if isinstance(item, QuestionError)]
        readable = {index: item for index, item in batch if not isinstance(item, QuestionError)}
        samples = [dataset.samples[index] for index in readable]
        asked = [(item, sample.query) for item, sample in zip(readable.values(), samples, strict=True)]
        respond = partial(_answer_asked, model, tokenizer, plan.generation)
        answered = answered_or_refused(respond, asked, [sample.question_id for sample in samples])
        if watch is not None and answered:
            profile = share_of_batch(*watch.lap(), len(answered))
            if warm:
                answered = [replace(each, profile=profile) if isinstance(each, Answer) else each for each in answered]
            warm = True
        yield from zip(readable, answered, strict=True)
        yield from broken


def _answer_asked(
    model: Any, tokenizer: Any, generation: dict[str, Any], asked: Sequence[tuple[Item, str]]
) -> list[Answer]:
    return answer_batch(model, tokenizer, [item for item, _ in asked], [query for _, query in asked], generation)


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


def run(dataset: QuestionDataset, model: Any, tokenizer: Any, plan: Run, write: WriteAnswer) -> float:
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
    bar = tqdm(total=len(dataset), unit="image", desc=plan.model_id, leave=None, disable=not plan.progress)
    with bar as progress, Stopwatch(model) if plan.profile else nullcontext() as watch:
        for index, result in answers(dataset, model, tokenizer, plan, watch):
            if isinstance(result, Answer):
                answered, visual_tokens = answered + 1, visual_tokens + result.visual_tokens
                progress.set_postfix(visual_tokens=f"{visual_tokens / answered:.1f}", refresh=False)
            elif plan.on_error == "stop":
                raise InputError(
                    f"{result}; the answers so far are saved, and a rerun continues here (--on-error skip goes on)"
                ) from result
            write(index, record(dataset.samples[index], result, plan))
            progress.update()
    return len(dataset) / (time.perf_counter() - start)


def record(sample: Sample, result: Any, plan: Run) -> dict[str, Any]:
    """One line of the answers file, with LLaVA's keys in LLaVA's order.

    Args:
        result: an ``Answer``, or a dataclass like it with ``text`` and ``lost``; or a ``QuestionError``.
    """
    measured = {"error": str(result)} if isinstance(result, QuestionError) else asdict(result)
    measured = {key: value for key, value in measured.items() if value is not None}
    measured |= sample.losses() | measured.pop("lost", {})
    return {
        **sample.line(measured.pop("text", "")),
        "answer_id": shortuuid.uuid(),
        "model_id": plan.model_id,
        "metadata": measured | plan.settings,
    }
