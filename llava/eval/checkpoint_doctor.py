"""Whether a checkpoint folder holds all that loading it takes, found out without reading a weight."""

from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from llava.eval.findings import Finding, can_go_on
from llava.eval.records import local_path
from llava.model.builder import MODEL_CLASSES
from llava.model.checkpoint import read_config, weight_files, weight_names
from llava.model.multimodal_encoder.builder import resolve_tower

TOWER = "model.vision_tower."
ON_TOP = {"adapter_config.json": "non_lora_trainables.bin", "mm_projector.bin": "mm_projector.bin"}
TOKENIZERS = ("tokenizer.model", "tokenizer.json")
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
        model_class = _model_class(config)
    except (AttributeError, OSError, TypeError, ValueError) as error:
        return [Finding("wrong", folder / "config.json", f"{error}; get the whole checkpoint from the hub")]
    findings = [Finding("ok", folder / "config.json", model_class.__name__)]
    for mark, extra in ON_TOP.items():
        if (folder / mark).is_file():
            return [*findings, _look_at_extra(folder / extra), look_at_tower(config, folder, False)]
    findings.append(_look_for_one(folder, TOKENIZERS, "the tokenizer comes with the checkpoint"))
    try:
        names = weight_names(folder)
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        return [*findings, Finding("wrong", folder, f"{error}; get the whole checkpoint from the hub")]
    in_checkpoint = any(name.startswith(TOWER) for name in names)
    findings.append(look_at_tower(config, folder, in_checkpoint))
    if can_go_on(findings):
        findings.append(_look_at_weights(config, model_class, folder, names, in_checkpoint))
    return findings


def _model_class(config: dict[str, Any]) -> Any:
    """The class that the config names.

    Raises:
        ValueError: it is not LLaVA's.
    """
    names = [*(config.get("architectures") or []), config.get("model_type")]
    known = [MODEL_CLASSES[name] for name in names if name in MODEL_CLASSES]
    if not known or "mm_vision_tower" not in config:
        raise ValueError(
            f"not a LLaVA checkpoint: {names} is none of {', '.join(MODEL_CLASSES)}, or no mm_vision_tower"
        )
    return known[0]


def _look_at_extra(file: Path) -> Finding:
    if not file.is_file():
        return Finding("missing", file, "a LoRA or projector without it does not load; get the whole checkpoint")
    return Finding("note", file, "loads on top of the language model that --model-base names, which is not looked at")


def _look_for_one(folder: Path, names: tuple[str, ...], source: str) -> Finding:
    found = [name for name in names if (folder / name).is_file()]
    if not found:
        return Finding("missing", folder, f"none of {', '.join(names)} is there; get it: {source}")
    return Finding("ok", folder / found[0], "there")


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
        return Finding("note", name, f"vision tower, not on this machine: the first run downloads it, or {get}")
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
    config: dict[str, Any], model_class: Any, folder: Path, names: set[str], in_checkpoint: bool
) -> Finding:
    """Whether the checkpoint holds every weight that the model has, told from a model without storage."""
    try:
        _local_tower(config["mm_vision_tower"], folder)
    except LocalEntryNotFoundError:
        return Finding("note", folder, "its weights are compared with the model once the vision tower is here")
    try:
        given = model_class.config_class.from_dict({key: value for key, value in config.items() if key != "model_type"})
        given.name_or_path = str(folder)
        with torch.device("meta"):
            needed = model_class(given, tower_in_checkpoint=in_checkpoint).state_dict()
    except Exception as error:  # configs raise whatever their checks come to
        return Finding("wrong", folder / "config.json", f"no model can be built from it: {error}; get it from the hub")
    tied = {"lm_head.weight"} if given.tie_word_embeddings else set()
    held = {name.replace("vision_tower.vision_model.", "vision_tower.") for name in names}
    if lacking := sorted(set(needed) - held - tied):
        more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
        return Finding("wrong", folder, f"lacks {', '.join(lacking[:5])}{more}; get the whole checkpoint from the hub")
    return Finding("ok", folder, f"all {len(needed)} weights")
