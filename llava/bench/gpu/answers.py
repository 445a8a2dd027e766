"""Part ``answers``: whole answers of one prompt and of sixteen, and how many requests fit into the memory."""

from functools import partial

import torch

from llava.bench.e2e import METHODS
from llava.bench.gpu.asked import NO_GRAPHS, Asked, can_switch_graphs, reads_text
from llava.bench.gpu.image_side import timings
from llava.bench.gpu.setting import Rows, Setting
from llava.bench.serve import largest_batch
from llava.pruners import name_of, resolve_pruner

BATCHES = (1, 16)
NEW_TOKENS = 16


@torch.no_grad()
def run(setting: Setting) -> Rows:
    """Rows without a pruner and with each main one, a new question for every image where it is read."""
    model = setting.model()
    kept = setting.kept(model.get_vision_tower().num_patches)
    pruners = [None, *(resolve_pruner(method, visual_token_num=kept) for method in METHODS)]
    can_switch = can_switch_graphs(model)
    for batch in BATCHES[: 1 if setting.small else 2]:
        for graphs in (False, True)[: 1 + can_switch]:
            if can_switch:
                model.cuda_graphs = graphs
            asked = {name_of(pruner): Asked(model, pruner, batch, reads_text(pruner)) for pruner in pruners}
            taken = timings(
                {name: (calls.prepare, partial(calls.answer, NEW_TOKENS)) for name, calls in asked.items()},
                setting,
                reps=2,
                warm=1,
            )
            for name, timing in taken.items():
                row = {"method": name, "B": batch, "graphs": graphs, "new_tokens": NEW_TOKENS, "n": timing.n}
                row |= {"answer_ms": timing.wall_ms, "gpu_ms": timing.gpu_ms, "noisy": timing.noisy}
                yield row | {"speedup": taken["none"].wall_ms / timing.wall_ms}
    if not can_switch:
        yield {"note": NO_GRAPHS}
    for pruner in pruners[:2]:
        model.set_pruner(pruner)
        fits = largest_batch(model, setting.where, 1024 * setting.memory_gb, setting.probes)
        yield {"method": name_of(pruner), "largest_batch": fits, "memory_gb": setting.memory_gb}
