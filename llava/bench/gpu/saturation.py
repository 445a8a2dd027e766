"""Part ``saturation``: images answered in a second at every batch size, with and without a pruner."""

from functools import partial
from typing import Any

import torch

from llava.bench.e2e import METHODS
from llava.bench.gpu.asked import Asked, reads_text
from llava.bench.gpu.setting import Row, Rows, Setting
from llava.bench.serve import NEW_TOKENS, speed, sustain
from llava.pruners import Pruner, name_of, resolve_pruner

BATCHES = (64, 128, 32, 16, 8, 1)
"""The likely best ones first, so that a run that is cut short has them."""
SECONDS, FEWEST = 1.0, 3
CURVE = "cdpruner"


def measured(model: Any, pruner: Pruner | None, batch: int, new_questions: bool, setting: Setting) -> Row:
    """The row of one batch size; without a speed where memory does not suffice."""
    row: Row = {"method": name_of(pruner), "B": batch, "new_tokens": NEW_TOKENS}
    row["question"] = "new" if new_questions else "known"
    asked = Asked(model, pruner, batch, new_questions)
    asked.prepare()
    if setting.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    seconds, fewest = (0.0, 1) if setting.small else (SECONDS, FEWEST)
    try:
        samples = sustain({"": partial(asked.answer, NEW_TOKENS)}, setting.where, seconds, fewest)[""]
    except torch.OutOfMemoryError:
        row["out_of_memory"] = True
    else:
        row |= speed(samples, batch) | {"visual": model.last_prune.visual_tokens[0]}
    if setting.device == "cuda":
        row["peak_gb"] = torch.cuda.max_memory_allocated() / 2**30
    return row


@torch.no_grad()
def run(setting: Setting) -> Rows:
    """Rows without a pruner and with one at every batch size; then of the others where this one was fastest.

    Pruners that read the question are measured there with a new one for every image as well.
    """
    model = setting.model()
    kept = setting.kept(model.get_vision_tower().num_patches)
    pruners = {method: resolve_pruner(method, visual_token_num=kept) for method in METHODS}
    best = (0.0, BATCHES[0])
    for batch in BATCHES[-2:] if setting.small else BATCHES:
        for pruner in (None, pruners[CURVE]):
            row = measured(model, pruner, batch, False, setting)
            best = max(best, (row.get("images_per_second", 0.0) if pruner else 0.0, batch))
            yield row
    for method, pruner in pruners.items():
        if method != CURVE:
            yield measured(model, pruner, best[1], False, setting)
        if reads_text(pruner):
            yield measured(model, pruner, best[1], True, setting)
