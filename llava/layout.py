"""How a checkpoint's config says that images are laid out: which values there are, and what is no such value."""

import ast
from collections.abc import Sequence
from typing import Any

ASPECT_RATIOS = (None, "square", "pad", "anyres")
MERGE_TYPES = ("flat", "spatial", "spatial_unpad")
SELECT_FEATURES = ("patch", "cls_patch")


def check_aspect_ratio(value: Any) -> str | None:
    """Return ``image_aspect_ratio`` if it is known, else raise ValueError.

    ``pad`` pads to a square, ``anyres`` cuts into tiles; None and ``square`` crop the centre, as in LLaVA.
    """
    check_key("image_aspect_ratio", value, ASPECT_RATIOS)
    return value


def check_pinpoints(value: Any, tile: int | None = None) -> list[tuple[int, int]]:
    """Return ``image_grid_pinpoints`` as canvases of (width, height) in pixels.

    Args:
        value: the config's: pairs, or their string form.
        tile: side of a tile in pixels, of which every side must be a multiple; None leaves that unchecked.

    Raises:
        ValueError: it is missing, empty, or of another form.
    """
    pairs = _literal(value) if isinstance(value, str) else value
    if not _is_sequence(pairs) or not pairs or not all(_is_canvas(pair) for pair in pairs):
        form = "no list of canvases (width, height) such as [[336, 672], [672, 336]]"
        raise ValueError(f"image_grid_pinpoints {_short(value)} is {form}")
    canvases = [tuple(pair) for pair in pairs]
    if tile and (uneven := [canvas for canvas in canvases if canvas[0] % tile or canvas[1] % tile]):
        raise ValueError(f"image_grid_pinpoints has {uneven[0]}, which is not cut evenly into tiles of {tile} pixels")
    return canvases


def check_key(name: str, value: Any, valid: Sequence[Any]) -> None:
    """Raise ValueError unless ``value`` of the config's key ``name`` is one of ``valid``."""
    if not any(value is each or (isinstance(value, str) and value == each) for each in valid):
        raise ValueError(f"{name} {_short(value)} is not one of {_listed(valid)}")


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _is_canvas(pair: Any) -> bool:
    return _is_sequence(pair) and len(pair) == 2 and all(type(side) is int and side > 0 for side in pair)


def _listed(values: Sequence[Any]) -> str:
    return ", ".join("null" if value is None else str(value) for value in values)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
