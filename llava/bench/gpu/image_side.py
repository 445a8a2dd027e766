"""Part ``image_side``: what a pruner adds before the language model, and what is left of it at the first token.

The image side is everything from pixels to the prompt's embeddings: tower, cues, projector, selection and splice.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from llava.bench.e2e import METHODS
from llava.bench.flops import TEXT_TOKENS
from llava.bench.gpu.asked import Asked, reads_text, switch_on_graphs
from llava.bench.gpu.setting import Row, Rows, Setting
from llava.bench.harness import Sample, sample, summarize
from llava.bench.prefill import prefill
from llava.pruners import resolve_pruner

BATCHES = (1, 16)
ROUNDS = {1: 12, 16: 6}  # by batch
WARM = 3


def in_turn(
    blocks: Mapping[Any, tuple[Callable, Callable]], setting: Setting, rounds: int, warm: int = WARM
) -> dict[Any, list[Sample]]:
    """Time what is prepared by the first function of each block and done by the second, once in every round.

    Before each block's sample the call is made once; ``warm`` times in the first round, since graphs are captured then.
    What launches bind takes half as long again when the CPU is slow for a while: what is to be compared is compared
    round by round, as ``ratio`` and ``difference`` do.
    """
    samples: dict[Any, list[Sample]] = {name: [] for name in blocks}
    for number in range(setting.reps(rounds)):
        for name, (before, call) in blocks.items():
            before()
            for _ in range(1 if number else setting.reps(warm)):
                call()
            samples[name].append(sample(call, setting.where))
    return samples


def ratio(samples: Sequence[Sample], others: Sequence[Sample]) -> float:
    """The median over the rounds of one wall time over another."""
    return statistics.median(one[1] / other[1] for one, other in zip(samples, others, strict=True))


def difference(samples: Sequence[Sample], others: Sequence[Sample]) -> float:
    """The median over the rounds of what one wall time is longer than another, in milliseconds."""
    return statistics.median(one[1] - other[1] for one, other in zip(samples, others, strict=True))


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
    image, first = (
        in_turn({way: (calls.prepare, getattr(calls, name)) for way, calls in ways.items()}, setting, ROUNDS[batch])
        for name in ("image_side", "first_token")
    )
    visual = {way: tokens if way[0] == "none" else kept for way in ways}
    prompts = {number: prefill(model, number + TEXT_TOKENS, batch) for number in dict.fromkeys(visual.values())}
    language = in_turn({number: (lambda: None, call) for number, call in prompts.items()}, setting, ROUNDS[batch])
    rows = []
    for way in ways:
        row = {"method": way[0], "question": way[1], "B": batch, "T": visual[way], "graphs": graphs}
        for stage, samples in (
            ("image_side", image[way]),
            ("first_token", first[way]),
            ("prefill", language[visual[way]]),
        ):
            taken = summarize(samples)
            row |= {f"{stage}_ms": taken.wall_ms, f"{stage}_min_ms": taken.min_ms, f"{stage}_gpu_ms": taken.gpu_ms}
            row |= {"n": taken.n, "noisy": row.get("noisy", False) or taken.noisy}
        row["first_token_of_none"] = ratio(first[way], first["none", "-"])
        if way[0] not in ("none", "uniform"):
            over = difference(image[way], image["uniform", "-"])
            row |= {"over_uniform_ms": over, "share_of_prefill": over / row["prefill_ms"]}
        rows.append(row)
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
