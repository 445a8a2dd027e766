"""Where and in what form a model's weights are loaded."""

import logging
from dataclasses import dataclass
from typing import Any

import torch
from transformers import BitsAndBytesConfig

logger = logging.getLogger(__name__)

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
DTYPES |= {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32, "half": torch.float16}


@dataclass(frozen=True)
class Placement:
    """What one call of ``load_pretrained_model`` comes to."""

    device_map: Any
    dtype: torch.dtype
    vision_dtype: torch.dtype
    attn_implementation: str | None
    quantization: BitsAndBytesConfig | None


def placement(
    device_map: Any,
    device: str,
    dtype: torch.dtype | str | None,
    loading: dict[str, Any],
    use_flash_attn: bool,
    load_8bit: bool,
    load_4bit: bool,
) -> Placement:
    """Turn LLaVA's arguments into a placement; ``loading`` has the options of ``load_pretrained_model``."""
    wanted = device if device_map in (None, "auto") else device_map
    if str(wanted).startswith("cuda") and not torch.cuda.is_available():
        logger.warning("no CUDA device is available: loading on the CPU")
        device, device_map = "cpu", None
    if device_map is None or (device_map == "auto" and device != "cuda"):
        device_map = {"": device}
    devices = device_map.values() if isinstance(device_map, dict) else [device_map]
    on_cpu = all(str(each) == "cpu" for each in devices)
    dtype = _dtype("dtype", dtype if dtype is not None else loading["torch_dtype"])
    dtype = dtype or (torch.float32 if on_cpu else torch.float16)
    quantization = None
    if load_8bit and load_4bit:
        raise ValueError("load_8bit and load_4bit exclude each other: choose one")
    if load_8bit or load_4bit:
        quantization = BitsAndBytesConfig(
            load_in_8bit=load_8bit,
            load_in_4bit=load_4bit,
            bnb_4bit_compute_dtype=dtype,
            bnb_4bit_use_double_quant=True,
            bnb_4bit_quant_type="nf4",
            llm_int8_skip_modules=["lm_head", "model.vision_tower", "model.mm_projector"],
        )
    return Placement(
        device_map=device_map,
        dtype=dtype,
        vision_dtype=_dtype("vision_dtype", loading["vision_dtype"]) or dtype,
        attn_implementation="flash_attention_2" if use_flash_attn else loading["attn_implementation"],
        quantization=quantization,
    )


def _dtype(option: str, value: torch.dtype | str | None) -> torch.dtype | None:
    if value is None or isinstance(value, torch.dtype):
        return value
    if not isinstance(value, str) or value.removeprefix("torch.") not in DTYPES:
        raise ValueError(f"{option} {value!r} is not one of {', '.join(DTYPES)}")
    return DTYPES[value.removeprefix("torch.")]
