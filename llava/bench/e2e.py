"""Suite ``e2e``: all stages up to the first logits, with and without pruning."""

from functools import partial
from typing import Any

import torch

from llava.bench.clip import random_images
from llava.bench.flops import TEXT_TOKENS, Shape
from llava.bench.harness import Timing, measure
from llava.bench.prefill import prefill
from llava.bench.select import Case, make_cues
from llava.model import LlavaLlamaForCausalLM
from llava.pruners import PRUNERS, VisualCues, resolve_pruner

METHODS = ("cdpruner", "divprune", "vispruner", "mfpruner")
KEPT = (192, 64)
QUESTION = "What color is the large shape?"


def break_even(tokens: int, kept: int, overhead_ms: float, before_ms: float, after_ms: float) -> float:
    """How many tokens may be kept for pruning to cost no more than it saves, prefill taken as linear between the two.

    Args:
        tokens, before_ms: visual tokens and prefill without pruning.
        kept, after_ms: the same with it.
        overhead_ms: what pruning adds before prefill.

    Returns:
        In [0, tokens]. Pruning pays when fewer are kept.
    """
    if before_ms <= after_ms:
        return 0.0
    return min(float(tokens), max(0.0, tokens - overhead_ms * (tokens - kept) / (before_ms - after_ms)))


@torch.no_grad()
def run(
    model: LlavaLlamaForCausalLM, shape: Shape, device: torch.device, reps: int, seed: int, text: int = TEXT_TOKENS
) -> list[dict[str, Any]]:
    """A row without pruning, then one per method and budget.

    Every stage is measured by itself and the total is their sum; ``prefill_ms`` is scaled from the layers that
    ``model`` has to all of ``shape``. The text stage embeds one question, which is done once for all its images.
    """
    tokens = model.get_vision_tower().num_patches
    budgets = [kept for kept in KEPT if kept < tokens] or [tokens // 4]
    calls = _stages(model, tokens, seed) | {
        f"prefill {visual}": prefill(model, visual + text) for visual in (tokens, *budgets)
    }
    for method in METHODS:
        cues = _cues(model, method, tokens, seed)
        for kept in budgets:
            calls[f"select {method} {kept}"] = partial(resolve_pruner(method, visual_token_num=kept), cues)
    timings = measure(calls, device, reps)
    scale = shape.layers / model.config.num_hidden_layers
    rows = [_row(timings, None, tokens, tokens, scale)]
    rows += [_row(timings, method, tokens, kept, scale) for method in METHODS for kept in budgets]
    layers = {"layers_run": model.config.num_hidden_layers, "layers": shape.layers}
    return [row | layers | {"reps": reps} for row in rows]


def _stages(model: LlavaLlamaForCausalLM, tokens: int, seed: int) -> dict[str, Any]:
    """The stages before selection, as calls."""
    tower = model.get_vision_tower()
    image = random_images(tower, 1, seed)
    stages = {f"vision {method}": partial(tower.cues, image, PRUNERS[method].needs, [QUESTION]) for method in METHODS}
    features = torch.randn(1, tokens, tower.hidden_size, device=model.device).to(model.dtype)
    return stages | {
        "vision None": partial(tower, image),
        "text": partial(tower.relevance.embed_texts, [QUESTION]),
        "projector": partial(model.get_model().mm_projector, features),
    }


def _cues(model: LlavaLlamaForCausalLM, method: str, tokens: int, seed: int) -> VisualCues:
    width = model.get_vision_tower().hidden_size if method == "vispruner" else model.config.hidden_size
    cues = make_cues(Case(method, 1, tokens, width, 1), seed, model.device)
    tensors = {name: getattr(cues, name).to(model.dtype) for name in ("features", "embeds")}
    return VisualCues(**tensors, cls_attention=cues.cls_attention, relevance=cues.relevance)


def _row(timings: dict[str, Timing], method: str | None, tokens: int, kept: int, scale: float) -> dict[str, Any]:
    def stages(name: str | None, visual: int) -> dict[str, Timing]:
        used = {"vision": timings[f"vision {name}"], "projector": timings["projector"]}
        if name is not None:
            used["select"] = timings[f"select {name} {visual}"]
            if "relevance" in PRUNERS[name].needs:
                used["text"] = timings["text"]
        return used | {"prefill": timings[f"prefill {visual}"]}

    def milliseconds(used: dict[str, Timing]) -> dict[str, float]:
        return {stage: timing.steady_ms * (scale if stage == "prefill" else 1) for stage, timing in used.items()}

    plain, used = stages(None, tokens), stages(method, kept)
    before, ms = milliseconds(plain), milliseconds(used)
    row = {"suite": "e2e", "method": method or "none", "N": tokens, "T": kept}
    row |= {f"{stage}_ms": ms.get(stage, 0.0) for stage in ("vision", "text", "projector", "select", "prefill")}
    row |= {"total_ms": sum(ms.values()), "speedup": sum(before.values()) / sum(ms.values())}
    row["noisy"] = any(timing.noisy for timing in [*plain.values(), *used.values()])
    if method is not None:
        overhead = ms["vision"] - before["vision"] + ms["select"] + ms.get("text", 0.0)
        row["selection_share"] = ms["select"] / ms["prefill"]
        row["break_even_tokens"] = break_even(tokens, kept, overhead, before["prefill"], ms["prefill"])
    return row
