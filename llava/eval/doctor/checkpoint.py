"""Whether a checkpoint folder holds all that loading it takes, found out without reading a weight."""

from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from llava.eval.doctor.findings import Finding, can_go_on
from llava.model.adapter import read_adapter
from llava.model.builder import model_class_of, model_config
from llava.model.checkpoint import (
    has_weights,
    is_computed,
    load_tensors,
    read_config,
    refuse_beyond,
    refuse_mismatched,
    refuse_missing,
    weight_files,
    weight_shapes,
)
from llava.model.config_checks import check_config, check_quantization, check_tuned_tower
from llava.model.multimodal_encoder.builder import resolve_tower
from llava.model.on_base import BESIDE_LORA, PROJECTOR, is_lora
from llava.model.vocabulary import TOKENIZERS, load_tokenizer
from llava.records import local_path

GIGABYTES = {"openai/clip-vit-large-patch14-336": 1.7}
"""Of the weights of towers on the hub."""
TOWER = "model.vision_tower."
TOWER_FILES = (("config.json",), ("preprocessor_config.json", "processor_config.json"))


def diagnose_checkpoint(path: str) -> list[Finding]:
    """Look at a checkpoint's config, weights, tokenizer and vision tower.

    A LoRA or a projector by itself is reported as such: it loads on top of a language model, which is not looked at.
    """
    folder = local_path(path)
    if not folder.is_dir():
        return [Finding("missing", path, f"no such folder; get it: hf download OWNER/NAME --local-dir {path}")]
    try:
        config = read_config(folder)
        model_class = model_class_of(config, folder)
    except (AttributeError, OSError, TypeError, ValueError) as error:
        return [Finding("wrong", folder / "config.json", f"{error}; get the whole checkpoint from the hub")]
    findings = [Finding("ok", folder / "config.json", model_class.__name__)]
    if is_lora(folder) or ((folder / PROJECTOR).is_file() and not has_weights(folder)):
        return [*findings, _look_at_extra(folder), look_at_tower(config, folder, False)]
    findings.append(_look_at_tokenizer(folder))
    try:
        shapes = weight_shapes(folder)
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        return [*findings, Finding("wrong", folder, f"{error}; get the whole checkpoint from the hub")]
    in_checkpoint = any(name.startswith(TOWER) for name in shapes)
    findings.append(look_at_tower(config, folder, in_checkpoint))
    if can_go_on(findings):
        findings.append(_look_at_weights(config, model_class, folder, shapes, in_checkpoint))
    return findings


def _look_at_extra(folder: Path) -> Finding:
    """Whether the files of a LoRA or a projector are there and whole."""
    file = folder / (BESIDE_LORA if is_lora(folder) else PROJECTOR)
    try:
        if is_lora(folder):
            read_adapter(folder)
        load_tensors(file)
    except FileNotFoundError as error:
        return Finding("missing", file, f"{error}: it does not load without; get the whole checkpoint")
    except (ImportError, ValueError) as error:
        return Finding("wrong", folder, f"{error}; get the whole checkpoint")
    return Finding("note", file, "loads on top of the language model that --model-base names, which is not looked at")


def _look_at_tokenizer(folder: Path) -> Finding:
    try:
        load_tokenizer(folder)
    except FileNotFoundError as error:
        return Finding("missing", folder, f"{error}; get it: the tokenizer comes with the checkpoint")
    except ValueError as error:
        return Finding("wrong", folder, f"{error}; get it: the tokenizer comes with the checkpoint")
    return Finding("ok", folder / next(name for name in TOKENIZERS if (folder / name).is_file()), "there")


def look_at_tower(config: dict[str, Any], folder: Path, in_checkpoint: bool) -> Finding:
    """Whether the vision tower that the config names is there: a folder, or a hub id in the cache.

    Args:
        in_checkpoint: the checkpoint holds the tower's weights itself; its CLIP's config is needed all the same, and
            its text side for the pruners that read relevance.
    """
    name = config["mm_vision_tower"]
    get = f"get it: hf download {name}, or correct mm_vision_tower in {folder / 'config.json'}"
    try:
        tower = _local_tower(name, folder)
    except LocalEntryNotFoundError:
        size = f" ({GIGABYTES[name]:g} GB)" if name in GIGABYTES else ""
        return Finding("note", name, f"vision tower, not on this machine: the first run downloads it{size}, or {get}")
    except (OSError, TypeError, ValueError) as error:
        return Finding("missing", "mm_vision_tower", f"{error}; {get}")
    for names in TOWER_FILES:
        if not any((tower / file).is_file() for file in names):
            return Finding("missing", tower, f"vision tower without {' or '.join(names)}; {get}")
    try:
        files = weight_files(tower)
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        return Finding("note" if in_checkpoint else "wrong", tower, f"vision tower: {error}; {get}")
    return Finding("ok", tower, f"vision tower in {', '.join(file.name for file in files)}")


def _local_tower(name: str, folder: Path) -> Path:
    """The folder of the tower, where a hub id lies in the cache too; nothing is downloaded."""
    tower = Path(resolve_tower(name, str(folder)))
    return tower if tower.is_dir() else Path(snapshot_download(name, local_files_only=True))


def _look_at_weights(
    config: dict[str, Any], model_class: Any, folder: Path, shapes: dict[str, tuple[int, ...]], in_checkpoint: bool
) -> Finding:
    """Whether the config can be met and the checkpoint holds the model's weights, told from one without storage."""
    try:
        _local_tower(config["mm_vision_tower"], folder)
    except LocalEntryNotFoundError:
        return Finding("note", folder, "its weights are compared with the model once the vision tower is here")
    try:
        given = model_config(model_class, config, folder)
        check_config(given, folder)
        check_quantization(given, shapes, folder, False)
        check_tuned_tower(given, in_checkpoint, folder)
        if getattr(given, "quantization_config", None) is not None:
            return Finding("note", folder, "its weights are quantised and not compared with the model")
        with torch.device("meta"):
            model = model_class(given, tower_in_checkpoint=in_checkpoint)
        needed = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        _compare(needed, shapes, {"lm_head.weight"} if given.tie_word_embeddings else set(), folder)
    except Exception as error:  # configs raise whatever their checks come to
        return Finding("wrong", folder, f"{error}; get the whole checkpoint from the hub")
    return Finding("ok", folder, f"all {len(needed)} weights")


def _compare(needed: dict[str, Any], shapes: dict[str, Any], tied: set[str], folder: Path) -> None:
    """Raise ValueError unless a checkpoint holds the weights of its model, in their shapes."""
    held = {name.replace("vision_tower.vision_model.", "vision_tower."): shape for name, shape in shapes.items()}
    refuse_missing(set(needed) - set(held) - tied, folder)
    refuse_mismatched(((n, held[n], each) for n, each in needed.items() if n in held and held[n] != each), folder)
    refuse_beyond((name for name in held if name not in needed and not is_computed(name)), folder)
