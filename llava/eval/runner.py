"""The one loop behind every program that asks questions: generate in batches, write each answer with its place."""

import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import shortuuid
import torch
from tqdm import tqdm

from llava.eval.answers import WriteAnswer
from llava.eval.dataset import ImageError, Item, QuestionDataset, Sample, batches, left_pad, stack_images
from llava.eval.profile import share_of_batch
from llava.eval.records import InputError
from llava.model.stages import Stopwatch


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
        profile: what of it each stage took, from ``llava.eval.profile.share_of_batch``; None if it was not measured.
    """

    text: str
    visual_tokens: int
    newline_tokens: int
    tokens_before: int
    tiles: int
    latency_ms: float
    profile: dict[str, float | None] | None = None


@dataclass(frozen=True)
class Run:
    """How answers are made.

    Args:
        model_id: the model's name in every record.
        settings: the part of every record's ``metadata`` that is the same for the whole run.
        generation: keywords of ``generate``, from ``generation_options``.
        batch_size: questions per call of ``generate``; above 1, questions of similar length share a call.
        num_workers: processes that decode images; 0 decodes in this one.
        on_error: ``"stop"`` raises at an unreadable image, ``"skip"`` records it and goes on.
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


def generation_options(
    temperature: float = 0.0,
    top_p: float | None = None,
    num_beams: int = 1,
    max_new_tokens: int = 128,
    static_cache: bool | None = False,
) -> dict[str, Any]:
    """Keywords of ``generate``; a temperature of 0 is greedy and leaves the sampling arguments out."""
    options = {"num_beams": num_beams, "max_new_tokens": max_new_tokens, "use_cache": True}
    if static_cache:
        options["cache_implementation"] = "static"
    if temperature > 0:
        return options | {"do_sample": True, "temperature": temperature, "top_p": top_p}
    return options | {"do_sample": False}


def pad_token_id(tokenizer: Any) -> int:
    """A special token to pad with; decoding drops it."""
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


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
    return [Answer(text.strip(), *count, latency_ms) for text, count in zip(texts, counts, strict=True)]


def _token_counts(prune: Any, items: Sequence[Item]) -> Iterator[tuple[int, int, int, int]]:
    """Visual tokens, newline tokens, tokens before pruning, and tiles of every item."""
    images = iter(zip(prune.visual_tokens, prune.newline_tokens, prune.tokens_before, strict=True) if prune else ())
    for _, pixels, _ in items:
        tiles = 0 if pixels is None else 1 if pixels.ndim == 3 else len(pixels)
        yield (*(next(images) if tiles else (0, 0, 0)), tiles)


def answers(
    dataset: QuestionDataset, model: Any, tokenizer: Any, plan: Run, watch: Stopwatch | None = None
) -> Iterator[tuple[int, Answer | ImageError]]:
    """Yield the index of every sample with its answer, or with the reason why its image could not be read.

    Batches come as ``batches`` makes them; what is unreadable in a batch comes after its answers.

    Args:
        watch: gives the answers their ``profile``, those of the first batch aside.
    """
    warm = False
    for batch in batches(dataset, plan.batch_size, plan.num_workers):
        broken = [(index, item) for index, item in batch if isinstance(item, ImageError)]
        readable = {index: item for index, item in batch if not isinstance(item, ImageError)}
        queries = [dataset.samples[index].query for index in readable]
        answered = answer_batch(model, tokenizer, list(readable.values()), queries, plan.generation)
        if watch is not None and answered:
            profile = share_of_batch(*watch.lap(), len(answered))
            answered = [replace(answer, profile=profile) for answer in answered] if warm else answered
            warm = True
        yield from zip(readable, answered, strict=True)
        yield from broken


def run(dataset: QuestionDataset, model: Any, tokenizer: Any, plan: Run, write: WriteAnswer) -> float:
    """Answer every question of ``dataset`` and hand each line to ``write``, with the question's index in the dataset.

    With a batch size of 1 the lines come in question order. Greedy answers in float32 depend neither on the batch size
    nor on which questions share a batch.

    Returns:
        Questions per second, decoding and writing included.

    Raises:
        InputError: an unreadable image under ``on_error="stop"``, after every answer computed so far is written.
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


def record(sample: Sample, result: Answer | ImageError, plan: Run) -> dict[str, Any]:
    """One line of the answers file, with LLaVA's keys in LLaVA's order."""
    measured = {"error": str(result)} if isinstance(result, ImageError) else asdict(result)
    measured = {key: value for key, value in measured.items() if value is not None}
    return {
        **sample.line(measured.pop("text", "")),
        "answer_id": shortuuid.uuid(),
        "model_id": plan.model_id,
        "metadata": measured | plan.settings,
    }
