"""Part ``answers``: whole answers of one prompt and of sixteen, and how many requests fit into the memory."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from llava.bench.e2e import METHODS
from llava.bench.gpu.asked import Asked, reads_text, switch_on_graphs
from llava.bench.gpu.image_side import in_turn, ratio
from llava.bench.gpu.setting import Row, Rows, Setting
from llava.bench.harness import summarize
from llava.bench.serve import largest_batch
from llava.pruners import Pruner, name_of, resolve_pruner

BATCHES = (1, 16)
NEW_TOKENS = 16
ROUNDS = 3


def measured(model: Any, pruners: Sequence[Pruner | None], batch: int, graphs: bool, setting: Setting) -> list[Row]:
    """A row per pruner, with a new question for every image where it is read."""
    asked = {name_of(pruner): Asked(model, pruner, batch, reads_text(pruner)) for pruner in pruners}
    blocks = {name: (calls.prepare, partial(calls.answer, NEW_TOKENS)) for name, calls in asked.items()}
    samples = in_turn(blocks, setting, ROUNDS, warm=3 if graphs else 1)
    rows = []
    for name, timing in ((name, summarize(taken)) for name, taken in samples.items()):
        row = {"method": name, "B": batch, "graphs": graphs, "new_tokens": NEW_TOKENS, "n": timing.n}
        row |= {"answer_ms": timing.wall_ms, "gpu_ms": timing.gpu_ms, "noisy": timing.noisy}
        rows.append(row | {"speedup": ratio(samples["none"], samples[name])})
    return rows


@torch.no_grad()
def run(setting: Setting) -> Rows:
    """Rows without a pruner and with each main one; then the largest batch of two."""
    model = setting.model()
    kept = setting.kept(model.get_vision_tower().num_patches)
    pruners = [None, *(resolve_pruner(method, visual_token_num=kept) for method in METHODS)]
    batches = BATCHES[: 1 if setting.small else 2]
    for batch in batches:
        yield from measured(model, pruners, batch, False, setting)
    for pruner in pruners[:2]:
        model.set_pruner(pruner)
        fits = largest_batch(model, setting.where, 1024 * setting.memory_gb, setting.probes)
        yield {"method": name_of(pruner), "largest_batch": fits, "memory_gb": setting.memory_gb}
    if missing := switch_on_graphs(model):
        yield {"note": missing}
        return
    for batch in batches:
        yield from measured(model, pruners, batch, True, setting)
