"""Suite ``prefill``: the language model on prompts with more and with fewer visual tokens."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from llava.bench.floors import measure_rates
from llava.bench.flops import TEXT_TOKENS, Shape, kv_cache_mb, prefill_flops, tera
from llava.bench.harness import extra_peak_mb, measure
from llava.model import LlavaLlamaForCausalLM

LLAVA_15 = (576, 192, 128, 64, 32)
LLAVA_NEXT = (2880, 640, 320, 160)


def prefill(model: LlavaLlamaForCausalLM, tokens: int, batch: int = 1) -> Callable[[], Any]:
    """Prompts of that many embeddings: keys and values of all, logits of the last."""
    embeds = 0.02 * torch.randn(batch, tokens, model.config.hidden_size, device=model.device).to(model.dtype)
    return partial(model, inputs_embeds=embeds, use_cache=True, logits_to_keep=1)


def flop_columns(shape: Shape, visual: int, baseline: int, text: int = TEXT_TOKENS) -> dict[str, float]:
    """What the published conventions and the true count say about ``visual`` instead of ``baseline`` tokens."""
    counts = tera(shape, visual, text)
    before = prefill_flops(shape, baseline + text)
    return {f"tera_{convention}": count for convention, count in counts.items()} | {
        "flop_ratio": before / prefill_flops(shape, visual + text),
        "cut_with_text": 1 - prefill_flops(shape, visual + text) / before,
        "cut_visual_only": 1 - prefill_flops(shape, visual) / prefill_flops(shape, baseline),
    }


@torch.no_grad()
def run(
    model: LlavaLlamaForCausalLM,
    shape: Shape,
    device: torch.device,
    reps: int,
    grids: Sequence[Sequence[int]] = (LLAVA_15,),
    text: int = TEXT_TOKENS,
    batch: int = 1,
) -> list[dict[str, Any]]:
    """One row per number of visual tokens; the first of each grid is what its others are compared with.

    Times, floors and peaks are those of the layers that ``model`` has; FLOPs and KV cache those of all of ``shape``,
    for one of ``batch`` prompts.
    """
    rates = measure_rates(device, model.dtype)
    weights = sum(weight.nbytes for weight in model.get_model().layers.parameters())
    built = model.config.num_hidden_layers / shape.layers
    rows = []
    for grid in grids:
        calls = {str(visual): prefill(model, visual + text, batch) for visual in grid}
        timings = measure(calls, device, reps)
        baseline = timings[str(grid[0])]
        for visual in grid:
            timing = timings[str(visual)]
            rows.append(
                {"B": batch, "n": visual + text, "visual": visual, "ms": timing.steady_ms, "wall_ms": timing.wall_ms}
                | {"cpu_ms": timing.cpu_ms, "min_ms": timing.min_ms, "gpu_ms": timing.gpu_ms}
                | {"reps": timing.n, "noisy": timing.noisy or baseline.noisy}
                | {"speedup": baseline.steady_ms / timing.steady_ms}
                | {"floor_ms": rates.floor_ms(built * batch * prefill_flops(shape, visual + text), weights)}
                | flop_columns(shape, visual, grid[0], text)
                | {"kv_mb": kv_cache_mb(shape, visual + text), "peak_mb": extra_peak_mb(calls[str(visual)], device)}
                | {"layers_run": model.config.num_hidden_layers, "layers": shape.layers}
            )
    return rows
