"""Suite ``serve``: sustained throughput, batch after batch, with and without pruning."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from tqdm import tqdm

from llava.bench.clip import random_images
from llava.bench.e2e import QUESTION
from llava.bench.flops import TEXT_TOKENS
from llava.bench.harness import Sample, extra_peak_mb, sample, summarize
from llava.constants import IMAGE_TOKEN_INDEX
from llava.model import LlavaLlamaForCausalLM
from llava.model.memory import kv_mb
from llava.model.multimodal_encoder.clip_encoder import TILES_PER_CALL
from llava.pruners import Pruner, name_of
from llava.pruners.cues import CLIP_TEXT_CUES

BATCHES = (1, 2, 4, 8, 16, 32)
NEW_TOKENS = 8
SECONDS = 2.0
FEWEST_CALLS = 5
PROBES = (TILES_PER_CALL, 2 * TILES_PER_CALL)
"""Batches of no fewer tiles than the tower encodes at once: beyond them its memory grows no more."""


def request(
    model: LlavaLlamaForCausalLM, batch: int, seed: int = 0, texts: Sequence[str] | None = None
) -> dict[str, Any]:
    """What ``generate`` is given for as many prompts, each of one image and some text.

    Args:
        texts: their questions; one and the same if not given.
    """
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, model.config.vocab_size, (batch, TEXT_TOKENS + 1), generator=generator)
    ids[:, TEXT_TOKENS // 2] = IMAGE_TOKEN_INDEX
    return {
        "inputs": ids.to(model.device),
        "attention_mask": torch.ones_like(ids, device=model.device),
        "images": random_images(model.get_vision_tower(), batch, seed),
        "texts": list(texts or [QUESTION] * batch),
    }


def fixed_length(new_tokens: int = NEW_TOKENS) -> dict[str, Any]:
    """Options of ``generate`` for that many new tokens, greedy, whatever they are."""
    return {"do_sample": False, "min_new_tokens": new_tokens, "max_new_tokens": new_tokens, "pad_token_id": 0}


def answer(model: LlavaLlamaForCausalLM, batch: int, seed: int = 0) -> Callable[[], Any]:
    """One call of ``generate`` on a ``request``, with a fixed number of new tokens."""
    return partial(model.generate, **request(model, batch, seed), **fixed_length())


def sustain(
    calls: Mapping[str, Callable[[], Any]], device: torch.device, seconds: float, fewest: int = FEWEST_CALLS
) -> dict[str, list[Sample]]:
    """Call all in turn, again and again until each has had its time, after one call of each that does not count."""
    for call in calls.values():
        call()
    samples: dict[str, list[Sample]] = {name: [] for name in calls}
    start, rounds = time.perf_counter(), 0
    while time.perf_counter() - start < seconds * len(calls) or rounds < fewest:
        for name, call in calls.items():
            samples[name].append(sample(call, device))
        rounds += 1
    return samples


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[math.ceil(share * len(ordered)) - 1]


def kv_mb_per_request(model: LlavaLlamaForCausalLM, visual_tokens: int) -> float:
    """Keys and values of one request at its end, in MiB."""
    return kv_mb(model, visual_tokens + TEXT_TOKENS + NEW_TOKENS)


def weights_mb(model: LlavaLlamaForCausalLM) -> float:
    """What the weights take in MiB; CLIP's text side, which is no module of the model, where the pruner reads it."""
    weights = list(model.parameters())
    if model.pruner is not None and model.pruner.needs & CLIP_TEXT_CUES:
        weights += model.get_vision_tower().relevance.weights.parameters()
    return sum(weight.nbytes for weight in weights) / 2**20


def largest_batch(
    model: LlavaLlamaForCausalLM, device: torch.device, memory_mb: float, probes: tuple[int, int] = PROBES
) -> int:
    """How many requests fit beside the weights, by the peak memory of two batch sizes and a line through them.

    Smaller sizes are tried where these do not fit; 0 where not even two requests do.
    """
    small, large = probes
    peaks: dict[int, float] = {}
    while not peaks:
        if not small:
            return 0
        try:
            peaks = {batch: _peak_mb(model, batch, device) for batch in (small, large)}
        except torch.OutOfMemoryError:
            small, large = small // 2, large // 2
    # No request takes less than its keys and values.
    cache = kv_mb_per_request(model, model.last_prune.visual_tokens[0])
    per_request = max(cache, (peaks[large] - peaks[small]) / (large - small))
    fixed = weights_mb(model) + peaks[large] - large * per_request
    return max(0, int((memory_mb - fixed) // per_request))


def _peak_mb(model: LlavaLlamaForCausalLM, batch: int, device: torch.device) -> float:
    """The peak memory of a batch and its inputs in MiB.

    The second of two calls is measured: what the first leaves behind, such as a GPU's workspaces, CLIP's text side on
    its device and the embeddings of texts, counted into one of two sizes, would bend the line through them.
    """
    answer(model, batch)()
    return extra_peak_mb(lambda: answer(model, batch)(), device)


@torch.no_grad()
def run(
    model: LlavaLlamaForCausalLM,
    name: str,
    pruner: Pruner,
    device: torch.device,
    memory_gb: float,
    batches: Sequence[int] = BATCHES,
    seconds: float = SECONDS,
    probes: tuple[int, int] = PROBES,
) -> list[dict[str, Any]]:
    """Two rows per batch size, without and with ``pruner``; every request of a batch waits for the whole batch."""
    pruners = {name_of(chosen): chosen for chosen in (None, pruner)}
    fits = {}
    for method, chosen in pruners.items():
        model.set_pruner(chosen)
        fits[method] = largest_batch(model, device, 1024 * memory_gb, probes)
    rows = []
    for batch in tqdm(batches, desc=f"serve {name}", unit="batch size", leave=None):
        visual: dict[str, int] = {}
        calls = {
            method: partial(_answer_with, model, chosen, answer(model, batch), visual)
            for method, chosen in pruners.items()
        }
        for method, samples in sustain(calls, device, seconds).items():
            row = {"suite": "serve", "model": name, "method": method, "B": batch, "visual": visual[method]}
            row |= speed(samples, batch) | {"kv_mb_per_request": kv_mb_per_request(model, visual[method])}
            rows.append(row | {"memory_gb": memory_gb, "largest_batch": fits[method], "dtype": str(model.dtype)[6:]})
    return rows


def speed(samples: Sequence[Sample], batch: int) -> dict[str, Any]:
    """Throughput and latency of calls of that many prompts each."""
    walls = [wall for _, wall, _ in samples]
    return {
        "images_per_second": 1000 * batch * len(walls) / sum(walls),
        "p50_ms": percentile(walls, 0.5),
        "p99_ms": percentile(walls, 0.99),
        "n": len(walls),
        "noisy": summarize(samples).noisy,
    }


def _answer_with(
    model: LlavaLlamaForCausalLM, pruner: Pruner | None, call: Callable[[], Any], visual: dict[str, int]
) -> None:
    """Make one call under a pruner; note how many visual tokens an image had."""
    model.set_pruner(pruner)
    call()
    visual[name_of(pruner)] = model.last_prune.visual_tokens[0]
