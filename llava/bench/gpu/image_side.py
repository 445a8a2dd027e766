"""Part ``image_side``: what a pruner adds before the language model, and what is left of it at the first token.

The image side is everything from pixels to the prompt's embeddings: tower, cues, projector, selection and splice.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from llava.bench.e2e import METHODS
from llava.bench.flops import TEXT_TOKENS
from llava.bench.gpu.asked import Asked, reads_text, switch_on_graphs
from llava.bench.gpu.setting import Row, Rows, Setting
from llava.bench.harness import Timing, sample, summarize
from llava.bench.prefill import prefill
from llava.pruners import resolve_pruner

BATCHES = (1, 16)
ROUNDS, REPS, WARM = 2, 8, 3


def timings(
    blocks: Mapping[Any, tuple[Callable, Callable]], setting: Setting, reps: int = REPS, warm: int = WARM
) -> dict[Any, Timing]:
    """Time what is prepared by the first function of each block and done by the second: all in turn, twice."""
    samples: dict[Any, list] = {name: [] for name in blocks}
    for _ in range(setting.reps(ROUNDS)):
        for name, (before, call) in blocks.items():
            before()
            for _ in range(setting.reps(warm)):
                call()
            samples[name] += [sample(call, setting.where) for _ in range(setting.reps(reps))]
    return {name: summarize(taken) for name, taken in samples.items()}


def asked(model: Any, batch: int, kept: int) -> dict[tuple[str, str], Asked]:
    """None, ``uniform`` and the main pruners; those that read the question also with a new one for every image."""
    ways = {("none", "-"): Asked(model, None, batch)}
    for method in ("uniform", *METHODS):
        pruner = resolve_pruner(method, visual_token_num=kept)
        ways[method, "known" if reads_text(pruner) else "-"] = Asked(model, pruner, batch)
        if reads_text(pruner):
            ways[method, "new"] = Asked(model, pruner, batch, new_questions=True)
    return ways


def measured(model: Any, batch: int, kept: int, graphs: bool, setting: Setting) -> list[Row]:
    """A row for each way at one batch size and budget."""
    tokens = model.get_vision_tower().num_patches
    ways = asked(model, batch, kept)
    image = timings({way: (calls.prepare, calls.image_side) for way, calls in ways.items()}, setting)
    first = timings({way: (calls.prepare, calls.first_token) for way, calls in ways.items()}, setting)
    visual = {way: tokens if way[0] == "none" else kept for way in ways}
    nothing: Callable[[], None] = lambda: None  # noqa: E731
    language = timings(
        {number: (nothing, prefill(model, number + TEXT_TOKENS, batch)) for number in set(visual.values())}, setting
    )
    rows = []
    for way in ways:
        row = {"method": way[0], "question": way[1], "B": batch, "T": visual[way], "graphs": graphs}
        row |= {"image_side_ms": image[way].wall_ms, "image_side_gpu_ms": image[way].gpu_ms}
        row |= {"first_token_ms": first[way].wall_ms, "first_token_gpu_ms": first[way].gpu_ms}
        row |= {"first_token_min_ms": first[way].min_ms, "n": first[way].n}
        row |= {"prefill_ms": language[visual[way]].wall_ms, "prefill_gpu_ms": language[visual[way]].gpu_ms}
        row["first_token_of_none"] = first[way].wall_ms / first["none", "-"].wall_ms
        if way[0] not in ("none", "uniform"):
            over = image[way].wall_ms - image["uniform", "-"].wall_ms
            row |= {"over_uniform_ms": over, "share_of_prefill": over / row["prefill_ms"]}
        rows.append(row | {"noisy": image[way].noisy or first[way].noisy})
    return rows


@torch.no_grad()
def run(setting: Setting) -> Rows:
    """Rows at batch 1 and 16, without CUDA graphs and, where this version has them, with."""
    model = setting.model()
    kept = setting.kept(model.get_vision_tower().num_patches)
    batches = BATCHES[: 1 if setting.small else 2]
    for batch in batches:
        yield from measured(model, batch, kept, False, setting)
    if missing := switch_on_graphs(model):
        yield {"note": missing}
        return
    for batch in batches:
        yield from measured(model, batch, kept, True, setting)
