"""Where and in what form a model's weights are loaded."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from llava.model.devices import FLASH, SPREAD, check_attention, check_bits, check_device, check_device_map, check_dtype

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Placement:
    """What one call of ``load_pretrained_model`` comes to."""

    device_map: Any
    dtype: torch.dtype
    vision_dtype: torch.dtype
    attn_implementation: str | None
    quantization: BitsAndBytesConfig | None
    cuda_graphs: bool = False


def placement(
    device_map: Any,
    device: str | None,
    dtype: torch.dtype | str | None,
    loading: dict[str, Any],
    use_flash_attn: bool,
    load_8bit: bool,
    load_4bit: bool,
) -> Placement:
    """Turn LLaVA's arguments into a placement; ``loading`` has the options of ``load_pretrained_model``.

    Raises:
        ValueError: a value that is none of the valid ones, which it names, or two that exclude each other.
        ImportError: a package that an option needs is not installed.
    """
    check_bits(load_8bit, load_4bit)
    device_map = _device_map(device_map, device)
    devices = device_map.values() if isinstance(device_map, dict) else [device_map]
    on_cpu = all(str(each) == "cpu" for each in devices)
    dtypes = {check_dtype("dtype", dtype), check_dtype("torch_dtype", loading["torch_dtype"])} - {None}
    if len(dtypes) > 1:
        raise ValueError(f"dtype {dtype} and torch_dtype {loading['torch_dtype']} are two names of one option")
    chosen = next(iter(dtypes), torch.float32 if on_cpu else torch.float16)
    if loading["cuda_graphs"]:
        _check_graphs(loading["cuda_graphs"], devices, load_8bit or load_4bit)
    attention = loading["attn_implementation"]
    if use_flash_attn and attention not in (None, FLASH):
        raise ValueError(f"use_flash_attn and attn_implementation {attention!r} exclude each other")
    attention = FLASH if use_flash_attn else attention
    check_attention(attention, on_cpu, chosen)
    return Placement(
        device_map=device_map,
        dtype=chosen,
        vision_dtype=check_dtype("vision_dtype", loading["vision_dtype"]) or chosen,
        attn_implementation=attention,
        quantization=_quantization(load_8bit, load_4bit, chosen) if load_8bit or load_4bit else None,
        cuda_graphs=bool(loading["cuda_graphs"]),
    )


def _check_graphs(value: Any, devices: Iterable[Any], in_few_bits: bool) -> None:
    if value is not True:
        raise ValueError(f"cuda_graphs must be True or False, not {value!r}")
    if in_few_bits:
        raise ValueError("cuda_graphs and load_8bit or load_4bit exclude each other")
    for each in devices:
        if isinstance(each, str) and each in SPREAD:
            continue  # known when the model is loaded
        if torch.device(each).type != "cuda":
            raise ValueError(f"cuda_graphs needs a CUDA device, such as cuda; here it is {each}")


def _device_map(device_map: Any, device: Any) -> Any:
    """Where accelerate puts what; on a GPU, or else the CPU, if nothing is said. "cuda" means the CPU without a GPU."""
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device is None else device
    check_device_map(None if str(device_map) == "cuda" else device_map)
    wanted = device if device_map in (None, "auto") else device_map
    if str(wanted) == "cuda" and not torch.cuda.is_available():
        logger.warning("no CUDA device is available: loading on the CPU")
        device, device_map = "cpu", None
    if device_map in (None, "auto"):
        check_device(device)
    if device_map is None or (device_map == "auto" and str(device) != "cuda"):
        device_map = {"": device}
    return device_map


def _quantization(load_8bit: bool, load_4bit: bool, dtype: torch.dtype) -> BitsAndBytesConfig:
    return BitsAndBytesConfig(
        load_in_8bit=load_8bit,
        load_in_4bit=load_4bit,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_quant_type="nf4",
        llm_int8_skip_modules=["lm_head", "model.vision_tower", "model.mm_projector"],
    )
