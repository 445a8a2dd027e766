"""Suite ``clip``: LLaVA's vision tower with [CLS] attention, against all blocks with all attention maps."""

import copy
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor

from llava.bench.floors import measure_rates
from llava.bench.flops import CLIP_LAYERS, clip_flops
from llava.bench.harness import extra_peak_mb, measure
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower

TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}  # of the largest value
Cues = tuple[Tensor, Tensor]  # features (B, N, C) and [CLS] attention (B, N)


def random_images(tower: CLIPVisionTower, number: int, seed: int) -> Tensor:
    """Normalised pixels, (number, 3, H, W)."""
    side = tower.config.image_size
    pixels = torch.randn(number, 3, side, side, generator=torch.Generator().manual_seed(seed))
    return pixels.to(tower.device, tower.dtype)


def cues_of_tower(tower: CLIPVisionTower, images: Tensor) -> Cues:
    """Our way."""
    features, cues = tower.cues(images, frozenset({"cls_attention"}))
    return features, cues["cls_attention"]


def eager_with_all_maps(tower: CLIPVisionTower) -> Callable[[Tensor], Cues]:
    """The releases' way, on a copy of the tower's weights: every block, eager, every attention map kept."""
    model = copy.deepcopy(tower.vision_tower)
    model.set_attn_implementation("eager")

    def encode(images: Tensor) -> Cues:
        outputs = model(images, output_hidden_states=True, output_attentions=True)
        attention = outputs.attentions[tower.select_layer][:, :, 0, 1:].float().mean(dim=1)
        return outputs.hidden_states[tower.select_layer][:, 1:], attention

    return encode


def agree(ours: Cues, plain: Cues) -> bool:
    """Whether two ways differ by the rounding of their dtype alone."""
    return all(
        bool((a - b).abs().max() <= TOLERANCE[plain[0].dtype] * b.abs().max()) for a, b in zip(ours, plain, strict=True)
    )


@torch.no_grad()
def run(tower: CLIPVisionTower, device: torch.device, reps: int, seed: int) -> list[dict[str, Any]]:
    """One row for one image; on a GPU, another for five tiles. The floor is CLIP-L/14's without its last block."""
    eager, rates, rows = eager_with_all_maps(tower), measure_rates(device, tower.dtype), []
    for batch in (1, 5) if device.type == "cuda" else (1,):
        images = random_images(tower, batch, seed)
        variants = {"ours": partial(cues_of_tower, tower, images), "reference": partial(eager, images)}
        features, attention = variants["ours"]()
        equal = agree((features, attention), variants["reference"]())
        timings = measure(variants, device, reps)
        ours, plain = timings["ours"], timings["reference"]
        peaks = {name: extra_peak_mb(call, device) for name, call in variants.items()}
        row = {"suite": "clip", "method": "cls_attention", "variant": "one row, blocks up to the selected one"}
        row |= {"N": features.shape[1], "B": batch, "D": features.shape[2], "dtype": str(tower.dtype)[6:]}
        row |= asdict(ours) | {"noisy": ours.noisy or plain.noisy}
        row |= {"reference_cpu_ms": plain.cpu_ms, "reference_wall_ms": plain.wall_ms}
        row |= {"ratio_to_reference": ours.steady_ms / plain.steady_ms, "equal": equal}
        row["floor_ms"] = rates.floor_ms(clip_flops(batch, CLIP_LAYERS - 1))
        rows.append(row | {"peak_mb": peaks["ours"], "ratio_of_peaks": peaks["ours"] / peaks["reference"]})
    return rows
