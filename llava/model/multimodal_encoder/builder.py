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


def refuse_foreign(tower: str) -> None:
    """Raise ValueError for what is neither a folder nor, by its name, a CLIP model on the hub."""
    if not Path(tower).is_dir() and not (tower.startswith(_KNOWN) or "clip" in tower.lower() or "ShareGPT4V" in tower):
        raise ValueError(f"mm_vision_tower {tower!r} is neither a folder nor a CLIP model's hub id")


def build_vision_tower(vision_tower_cfg: PretrainedConfig, **kwargs: bool) -> CLIPVisionTower:
    """Build the tower that the config names; keyword arguments go to ``CLIPVisionTower``."""
    name = getattr(vision_tower_cfg, "mm_vision_tower", getattr(vision_tower_cfg, "vision_tower", None))
    if getattr(vision_tower_cfg, "s2", False):
        raise ValueError("multi-scale towers (config.s2) are not supported")
    tower = resolve_tower(name, vision_tower_cfg.name_or_path)
    refuse_foreign(tower)
    return CLIPVisionTower(tower, args=vision_tower_cfg, **kwargs)
