"""The embedded benchmark: a small trained LLaVA and procedurally drawn scenes to ask it about."""

from pathlib import Path


def checkpoint_path() -> str:
    """Folder of the embedded LLaVA checkpoint; its CLIP lies beside it."""
    return str(Path(__file__).parent / "checkpoints" / "llava-shapes")
