"""Which vision tower a config names, and where it lies."""

from pathlib import Path

from transformers import PretrainedConfig

from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower

_KNOWN = ("openai", "laion")


def resolve_tower(name: str, checkpoint: str | None = None) -> str:
    """Return the folder or hub id that ``mm_vision_tower`` names.

    Args:
        name: hub id, absolute path, or path relative to the folder of the checkpoint.
        checkpoint: that folder, where there is one.
    """
    beside = Path(checkpoint or ".") / name
    if checkpoint and beside.is_dir():
        return str(beside.resolve())
    if Path(name).is_dir() or not (name.startswith((".", "/", "~"))):
        return name
    raise FileNotFoundError(f"mm_vision_tower {name!r}: no such folder, neither as it stands nor in {checkpoint}")


def build_vision_tower(vision_tower_cfg: PretrainedConfig, **kwargs: bool) -> CLIPVisionTower:
    """Build the tower that the config names; keyword arguments go to ``CLIPVisionTower``."""
    name = getattr(vision_tower_cfg, "mm_vision_tower", getattr(vision_tower_cfg, "vision_tower", None))
    if getattr(vision_tower_cfg, "s2", False):
        raise ValueError("multi-scale towers (config.s2) are not supported")
    tower = resolve_tower(name, vision_tower_cfg.name_or_path)
    if not Path(tower).is_dir() and not (name.startswith(_KNOWN) or "clip" in name.lower() or "ShareGPT4V" in name):
        raise ValueError(f"mm_vision_tower {name!r} is neither a folder nor a CLIP model's hub id")
    return CLIPVisionTower(tower, args=vision_tower_cfg, **kwargs)
