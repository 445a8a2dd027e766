"""Which vision tower a config names, and where it lies."""

from pathlib import Path

from transformers import PretrainedConfig

from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower

_KNOWN = ("openai", "laion")


def resolve_tower(name: str, checkpoint: str | None = None, base: str | None = None) -> str:
    """Return the folder or hub id that ``mm_vision_tower`` names.

    Args:
        name: hub id, absolute path, or path relative to the folder of the checkpoint, or of its base.
        checkpoint: that folder, where there is one.
        base: that of the language model which the checkpoint is put on, where there is one.

    Raises:
        FileNotFoundError: it is a path, and there is no such folder.
        ValueError: it is no name.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"mm_vision_tower is {name!r}, which names no CLIP model")
    for folder in (checkpoint, base):
        if folder and (Path(folder) / name).is_dir():
            return str((Path(folder) / name).resolve())
    if Path(name).is_dir() or not (name.startswith((".", "/", "~"))):
        return name
    where = checkpoint or base
    raise FileNotFoundError(f"mm_vision_tower {name!r}: no such folder, neither as it stands nor in {where}")


def tower_of(config: PretrainedConfig, checkpoint: str, base: str | None = None) -> str:
    """Return the folder or hub id of a config's vision tower, as ``resolve_tower`` finds it.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it is neither a folder nor, by its name, a CLIP model on the hub, or is read at several scales.
    """
    if getattr(config, "s2", False):
        raise ValueError("multi-scale towers (config.s2) are not supported")
    name = getattr(config, "mm_vision_tower", getattr(config, "vision_tower", None))
    tower = resolve_tower(name, checkpoint, base)
    if not Path(tower).is_dir() and not (tower.startswith(_KNOWN) or "clip" in tower.lower() or "ShareGPT4V" in tower):
        raise ValueError(f"mm_vision_tower {tower!r} is neither a folder nor a CLIP model's hub id")
    return tower


def build_vision_tower(vision_tower_cfg: PretrainedConfig, **kwargs: bool) -> CLIPVisionTower:
    """Build the tower that the config names; keyword arguments go to ``CLIPVisionTower``."""
    tower = tower_of(vision_tower_cfg, vision_tower_cfg.name_or_path)
    return CLIPVisionTower(tower, args=vision_tower_cfg, **kwargs)
