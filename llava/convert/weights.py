"""The weights of a checkpoint on their way from one folder to another, by LLaVA's names and never all in memory."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForImageTextToText, PretrainedConfig

from llava.convert.names import is_tower, llava_name, tower_name
from llava.model.checkpoint import is_computed, mapped_tensors, refuse_missing

logger = logging.getLogger(__name__)

EMBEDDINGS = "model.embed_tokens.weight"
VOCABULARY = (EMBEDDINGS, "lm_head.weight")


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Return the weights of a checkpoint of either format, mapped from their files."""
    return {llava_name(name): tensor for name, tensor in mapped_tensors(folder).items() if not is_computed(name)}


def add_tower(weights: dict[str, Tensor], clip: Callable[[], Path]) -> dict[str, Tensor]:
    """Return the weights with a vision tower: the checkpoint's own if it has one, else that of a CLIP checkpoint.

    Args:
        weights: those of the checkpoint.
        clip: gives the folder of CLIP; called only when it is needed, for it may be a download.
    """
    if any(is_tower(name) for name in weights):
        return weights
    tensors = {tower_name(name): tensor for name, tensor in mapped_tensors(clip()).items() if not is_computed(name)}
    tensors.pop(None, None)
    return weights | tensors


def check_weights(weights: dict[str, Tensor], config: PretrainedConfig, folder: Path) -> dict[str, Tensor]:
    """Return the weights that Transformers' model of this config has, without their vocabulary's size being checked.

    Raises:
        ValueError: if one is missing or of another shape.
    """
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    expected = {llava_name(name): tensor.shape for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        expected.pop("lm_head.weight", None)
    refuse_missing(set(expected) - set(weights), folder)
    for name, shape in expected.items():
        skip = int(name in VOCABULARY)
        if weights[name].shape[skip:] != shape[skip:]:
            raise ValueError(f"{folder}: {name} is {tuple(weights[name].shape)}, by its config {tuple(shape)}")
    if unused := sorted(set(weights) - set(expected)):
        logger.warning("%s holds weights that Transformers' model does not have: %s", folder, ", ".join(unused))
    return {name: weights[name] for name in expected}


def resize_vocabulary(weights: dict[str, Tensor], rows: int) -> dict[str, Tensor]:
    """Return the weights with this many rows of embeddings and logits, cut or filled up with the mean of the rows.

    The logit of a mean row is the mean of the logits: a token that was never trained is never the likeliest.
    """
    resized = dict(weights)
    for name in VOCABULARY:
        if name in weights:
            table = weights[name]
            missing = rows - len(table)
            mean = table.mean(dim=0, keepdim=True, dtype=torch.float32).to(table.dtype) if missing > 0 else None
            resized[name] = table[:rows] if mean is None else torch.cat([table, mean.expand(missing, -1)])
    return resized


def write_weights(weights: dict[str, Tensor], folder: Path, max_shard_size: str) -> None:
    """Write safetensors files of at most ``max_shard_size`` ("5GB"), one after another, and their index."""
    sizes = {name: tensor.to("meta") for name, tensor in weights.items()}
    plan = split_torch_state_dict_into_shards(sizes, max_shard_size=max_shard_size)
    for file, names in plan.filename_to_tensors.items():
        save_file({name: weights[name].contiguous() for name in names}, folder / file, metadata={"format": "pt"})
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
