"""Questions about a scene with answers of one word, by type, and the sentence that describes the scene."""

from collections.abc import Callable

import numpy as np

from llava.shapes.scenes import COLORS, SHAPES, Scene

SHORT_ANSWER_PROMPT = "Answer the question using a single word or phrase."


def _pick(rng: np.random.Generator, options: list) -> object:
    return options[rng.integers(len(options))]


def _unique(values: list[str]) -> list[str]:
    """Values that occur exactly once, in order."""
    return [value for value in values if values.count(value) == 1]


def ask_color(scene: Scene, rng: np.random.Generator) -> tuple[str, str] | None:
    """The colour of the only object of its shape."""
    shapes = _unique([item.shape for item in scene.objects])
    if not shapes:
        return None
    shape = _pick(rng, shapes)
    color = next(item.color for item in scene.objects if item.shape == shape)
    return f"What color is the {shape}?", color


def ask_shape(scene: Scene, rng: np.random.Generator) -> tuple[str, str] | None:
    """The shape of the only object of its colour."""
    colors = _unique([item.color for item in scene.objects])
    if not colors:
        return None
    color = _pick(rng, colors)
    shape = next(item.shape for item in scene.objects if item.color == color)
    return f"What shape is the {color} object?", shape


def ask_number(scene: Scene, rng: np.random.Generator) -> tuple[str, str] | None:
    """The number on the plate."""
    return ("What number is on the plate?", str(scene.plate.number)) if scene.plate else None


def ask_exist(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    """Whether a coloured shape is there: half the answers are yes, half of the rest recombine what the scene shows."""
    present = {(item.color, item.shape) for item in scene.objects}
    if rng.random() < 0.5:
        color, shape = _pick(rng, sorted(present))
        return f"Is there a {color} {shape}?", "Yes"
    recombined = {(color, shape) for color, _ in present for _, shape in present} - present
    anything = {(color, shape) for color in COLORS for shape in SHAPES} - present
    color, shape = _pick(rng, sorted(recombined if recombined and rng.random() < 0.5 else anything))
    return f"Is there a {color} {shape}?", "No"


def ask_count(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    """How many coloured shapes there are; the plate is none."""
    return "How many shapes are there?", str(len(scene.objects))


QUESTION_TYPES: dict[str, Callable[[Scene, np.random.Generator], tuple[str, str] | None]] = {
    "color": ask_color,
    "shape": ask_shape,
    "number": ask_number,
    "exist": ask_exist,
    "count": ask_count,
}


def describe(scene: Scene) -> str:
    """A caption that names every object and the plate, from left to right."""
    parts = [(item.left, f"a {item.color} {item.shape}") for item in scene.objects]
    if scene.plate:
        parts.append((scene.plate.left, f"a plate with the number {scene.plate.number}"))
    return ", ".join(text for _, text in sorted(parts))
