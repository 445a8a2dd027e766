"""Backgrounds by family: fields over the picture, from 0 to 1, that mix two muted colours."""

import numpy as np

IMAGE_SIZE = 96


def _coordinates() -> tuple[np.ndarray, np.ndarray]:
    axis = np.linspace(0.0, 1.0, IMAGE_SIZE, dtype=np.float32)
    return axis[:, None], axis[None, :]


def _tilted(rng: np.random.Generator) -> np.ndarray:
    """Distance along a random direction, as a field over the picture."""
    y, x = _coordinates()
    angle = rng.uniform(0, np.pi)
    return x * np.cos(angle) + y * np.sin(angle)


def _upsampled(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Random values on a coarse grid, interpolated bilinearly to the picture."""
    grid = rng.random((cells + 1, cells + 1), dtype=np.float32)
    position = np.linspace(0, cells, IMAGE_SIZE, endpoint=False)
    low = position.astype(int)
    share = (position - low).astype(np.float32)
    rows = grid[low] * (1 - share)[:, None] + grid[low + 1] * share[:, None]
    return rows[:, low] * (1 - share) + rows[:, low + 1] * share


def _clouds(rng: np.random.Generator) -> np.ndarray:
    return 0.65 * _upsampled(rng, int(rng.integers(3, 8))) + 0.35 * _upsampled(rng, int(rng.integers(12, 25)))


def _stripes(rng: np.random.Generator) -> np.ndarray:
    return 0.5 + 0.5 * np.sin(_tilted(rng) * rng.uniform(20, 75) + rng.uniform(0, 6.3))


def _checks(rng: np.random.Generator) -> np.ndarray:
    y, x = _coordinates()
    cells = rng.uniform(4, 14)
    return ((np.floor(x * cells + rng.random()) + np.floor(y * cells + rng.random())) % 2).astype(np.float32)


def _gradient(rng: np.random.Generator) -> np.ndarray:
    return np.clip(_tilted(rng) * rng.uniform(0.5, 1.0) + rng.uniform(0, 0.4), 0, 1)


def _specks(rng: np.random.Generator) -> np.ndarray:
    return (_upsampled(rng, int(rng.integers(20, 48))) > rng.uniform(0.6, 0.85)).astype(np.float32)


def _plaid(rng: np.random.Generator) -> np.ndarray:
    y, x = _coordinates()
    return 0.5 + 0.25 * (np.sin(x * rng.uniform(20, 60)) + np.sin(y * rng.uniform(20, 60)))


def _patches(rng: np.random.Generator) -> np.ndarray:
    cells = int(rng.integers(4, 13))
    steps = np.arange(IMAGE_SIZE) * cells // IMAGE_SIZE
    return rng.random((cells, cells), dtype=np.float32)[steps][:, steps]


def _waves(rng: np.random.Generator) -> np.ndarray:
    y, x = _coordinates()
    bent = y + rng.uniform(0.03, 0.1) * np.sin(x * rng.uniform(8, 25))
    return 0.5 + 0.5 * np.sin(bent * rng.uniform(25, 70))


def _marble(rng: np.random.Generator) -> np.ndarray:
    return 0.5 + 0.5 * np.sin(_tilted(rng) * rng.uniform(8, 25) + 6 * _upsampled(rng, int(rng.integers(3, 7))))


def _bricks(rng: np.random.Generator) -> np.ndarray:
    y, x = _coordinates()
    course = y * rng.uniform(6, 14) + rng.random()
    along = x * rng.uniform(3, 7) + 0.5 * (np.floor(course) % 2)
    return np.where((course % 1 < 0.2) | (along % 1 < 0.1), 1.0, 0.25).astype(np.float32)


def _ripples(rng: np.random.Generator) -> np.ndarray:
    y, x = _coordinates()
    radius = np.hypot(x - rng.uniform(-0.2, 1.2), y - rng.uniform(-0.2, 1.2))
    return 0.5 + 0.5 * np.sin(radius * rng.uniform(25, 80))


TEXTURES = {
    "clouds": _clouds,
    "stripes": _stripes,
    "checks": _checks,
    "gradient": _gradient,
    "specks": _specks,
    "plaid": _plaid,
    "patches": _patches,
    "waves": _waves,
    "marble": _marble,
    "bricks": _bricks,
    "ripples": _ripples,
}
