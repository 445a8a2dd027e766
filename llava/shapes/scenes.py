"""Procedurally drawn scenes: coloured shapes and a number plate on a textured, muted background."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from llava.shapes.textures import IMAGE_SIZE, TEXTURES

COLORS = {
    "red": (214, 40, 40),
    "orange": (244, 132, 20),
    "yellow": (246, 220, 48),
    "green": (44, 160, 60),
    "cyan": (40, 206, 214),
    "blue": (40, 80, 220),
    "purple": (126, 40, 168),
    "pink": (250, 130, 190),
}
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "star", "ring", "heart")
OBJECT_SIZES = range(15, 23)
OBJECT_COUNTS = range(2, 7)
PLATE_SHARE = 0.75
PLATE_HEIGHT, PLATE_WIDTH = 14, 20
MARGIN = 2

# Three-by-five digits, one string of rows per digit.
DIGIT_ROWS = (
    "111101101101111",
    "010110010010111",
    "111001111100111",
    "111001011001111",
    "101101111001001",
    "111100111001111",
    "111100111101111",
    "111001010010010",
    "111101111101111",
    "111101111001111",
)


FAMILIES = {
    "train": ("clouds", "stripes", "checks", "gradient", "specks", "plaid", "patches"),
    "val": ("waves", "marble"),
    "test": ("bricks", "ripples"),
}


@dataclass(frozen=True)
class SceneObject:
    """One coloured shape inside the square of `size` pixels whose top left corner is (`top`, `left`)."""

    color: str
    shape: str
    top: int
    left: int
    size: int


@dataclass(frozen=True)
class Plate:
    """A white plate with a number of two digits, top left corner at (`top`, `left`)."""

    number: int
    top: int
    left: int


@dataclass(frozen=True)
class Scene:
    """What a picture shows; `texture_seed` fixes every random choice of the background and its grain."""

    objects: tuple[SceneObject, ...]
    plate: Plate | None
    family: str
    texture_seed: int


def scene_generator(split: str, seed: int) -> np.random.Generator:
    """The random stream of one split: the same seed gives unrelated streams in different splits."""
    if split not in FAMILIES:
        raise ValueError(f"unknown split {split!r}: one of {', '.join(FAMILIES)}")
    return np.random.default_rng([sorted(FAMILIES).index(split), seed])


def _free_places(rng: np.random.Generator, sizes: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Top left corners at which boxes of these (height, width) keep a margin to each other and to the frame."""
    taken: list[tuple[int, int, int, int]] = []
    tries = 0
    while len(taken) < len(sizes):
        height, width = sizes[len(taken)]
        top = int(rng.integers(MARGIN, IMAGE_SIZE - MARGIN - height + 1))
        left = int(rng.integers(MARGIN, IMAGE_SIZE - MARGIN - width + 1))
        bottom, right = top + height + MARGIN, left + width + MARGIN
        if all(top >= b or left >= r or t >= bottom or n >= right for t, n, b, r in taken):
            taken.append((top, left, bottom, right))
        tries += 1
        if tries % 100 == 0:
            taken = []
    return [(top, left) for top, left, _, _ in taken]


def draw_scene(rng: np.random.Generator, split: str) -> Scene:
    """Draws objects that do not touch, a plate in three scenes of four, and a background of the split's families."""
    count = int(rng.integers(OBJECT_COUNTS.start, OBJECT_COUNTS.stop))
    sizes = [int(size) for size in rng.integers(OBJECT_SIZES.start, OBJECT_SIZES.stop, size=count)]
    has_plate = rng.random() < PLATE_SHARE
    boxes = [(PLATE_HEIGHT, PLATE_WIDTH)] * has_plate + [(size, size) for size in sizes]
    places = _free_places(rng, boxes)
    plate = Plate(int(rng.integers(10, 100)), *places.pop(0)) if has_plate else None
    colors, names = tuple(COLORS), SHAPES
    objects = tuple(
        SceneObject(colors[rng.integers(len(colors))], names[rng.integers(len(names))], top, left, size)
        for size, (top, left) in zip(sizes, places, strict=True)
    )
    family = FAMILIES[split][rng.integers(len(FAMILIES[split]))]
    return Scene(objects, plate, family, int(rng.integers(2**31)))


def _inside(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Whether points (u to the right, v downwards, both in [-1, 1]) lie in the shape."""
    radius = np.hypot(u, v)
    if shape == "circle":
        return radius <= 1
    if shape == "square":
        return np.maximum(abs(u), abs(v)) <= 0.88
    if shape == "triangle":
        return (v <= 0.85) & (abs(u) <= (v + 1) * 0.54)
    if shape == "diamond":
        return abs(u) * 1.25 + abs(v) <= 1
    if shape == "cross":
        return np.minimum(abs(u), abs(v)) <= 0.3
    if shape == "star":
        tip = abs(np.arctan2(u, -v) % (0.4 * np.pi) - 0.2 * np.pi) / (0.2 * np.pi)  # 1 at a tip, 0 between two
        return radius <= 0.42 + 0.68 * tip**1.6
    if shape == "ring":
        return (radius <= 1) & (radius >= 0.55)
    return u**2 + (1.15 * v + 0.75 * np.sqrt(abs(u)) - 0.3) ** 2 <= 1


@cache
def shape_mask(shape: str, size: int) -> np.ndarray:
    """Share of every pixel that the shape covers, (size, size) float32, by three samples per axis."""
    axis = (np.arange(size * 3) + 0.5) / (size * 1.5) - 1
    inside = _inside(shape, axis[None, :], axis[:, None])
    return inside.reshape(size, 3, size, 3).mean(axis=(1, 3)).astype(np.float32)


@cache
def plate_ink(number: int) -> np.ndarray:
    """The two digits as a mask over the plate, (PLATE_HEIGHT, PLATE_WIDTH) float32: strokes of two pixels."""
    ink = np.zeros((PLATE_HEIGHT, PLATE_WIDTH), dtype=np.float32)
    for place, digit in enumerate(divmod(number, 10)):
        rows = np.array([int(cell) for cell in DIGIT_ROWS[digit]], dtype=np.float32).reshape(5, 3)
        ink[2:12, 3 + 8 * place : 9 + 8 * place] = rows.repeat(2, axis=0).repeat(2, axis=1)
    return ink


def _background(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Two muted colours mixed by the family's texture, (96, 96, 3) float32."""
    first, second = (rng.uniform(70, 190) + rng.uniform(-22, 22, size=3) for _ in range(2))
    texture = TEXTURES[scene.family](rng).astype(np.float32)[..., None]
    return (first + (second - first) * texture).astype(np.float32)


def render(scene: Scene) -> np.ndarray:
    """The picture of a scene, (96, 96, 3) uint8; the same scene always gives the same pixels."""
    rng = np.random.default_rng(scene.texture_seed)
    picture = _background(scene, rng)
    for item in scene.objects:
        color = np.array(COLORS[item.color], dtype=np.float32) + rng.uniform(-14, 14, size=3).astype(np.float32)
        mask = shape_mask(item.shape, item.size)[..., None]
        place = picture[item.top : item.top + item.size, item.left : item.left + item.size]
        place += (color - place) * mask
    if scene.plate:
        paper, ink = rng.uniform(225, 255), rng.uniform(0, 40)
        top, left = scene.plate.top, scene.plate.left
        shown = paper + (ink - paper) * plate_ink(scene.plate.number)[..., None]
        picture[top : top + PLATE_HEIGHT, left : left + PLATE_WIDTH] = shown
    picture += rng.uniform(-10, 10, size=(IMAGE_SIZE, IMAGE_SIZE, 1)).astype(np.float32)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def object_map(scene: Scene) -> np.ndarray:
    """Which object every pixel shows, (96, 96) int64: -1 background, the object's index, len(objects) the plate."""
    owner = np.full((IMAGE_SIZE, IMAGE_SIZE), -1, dtype=np.int64)
    for index, item in enumerate(scene.objects):
        place = owner[item.top : item.top + item.size, item.left : item.left + item.size]
        place[shape_mask(item.shape, item.size) > 0.5] = index
    if scene.plate:
        top, left = scene.plate.top, scene.plate.left
        owner[top : top + PLATE_HEIGHT, left : left + PLATE_WIDTH] = len(scene.objects)
    return owner
