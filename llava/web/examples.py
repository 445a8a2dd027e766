"""Scenes of the embedded model's benchmark, with questions that it was trained for."""

from pathlib import Path

from PIL import Image

from llava.shapes.benchmark import ask_all
from llava.shapes.scenes import draw_scene, render, scene_generator

SEED = 6
KINDS = ("color", "count", "number", "shape", "exist")


def draw_examples(folder: Path, kinds: tuple[str, ...] = KINDS) -> list[tuple[str, str]]:
    """Draw one scene for each kind of question; the same ones at every call.

    Returns:
        Files in ``folder`` and their questions.
    """
    rng, drawn = scene_generator("test", SEED), []
    folder.mkdir(parents=True, exist_ok=True)
    while len(drawn) < len(kinds):
        scene, kind = draw_scene(rng, "test"), kinds[len(drawn)]
        asked = {name: question for name, question, _ in ask_all(scene, rng)}
        if kind in asked:
            path = folder / f"scene_{len(drawn) + 1}.png"
            Image.fromarray(render(scene)).save(path)
            drawn.append((str(path), asked[kind]))
    return drawn
