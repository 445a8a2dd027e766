"""Measures which sign of patch-text similarity training produced.

For every question about one object, the area under the ROC curve with which the pruners' relevance (the negated
cosine of patch and question) separates that object's patches from all others: 0.5 is chance, above it the negated
cosine points at the asked object, below it away from it.
"""

import argparse
from collections import defaultdict

import numpy as np
import torch
from tqdm import tqdm

from llava.command import Parser, at_least, run_program
from llava.model.builder import load_pretrained_model
from llava.shapes import checkpoint_path
from llava.shapes.benchmark import ask_all
from llava.shapes.scenes import COLORS, SHAPES, Scene, draw_scene, render, scene_generator
from scripts.shapes.data import patch_labels, pixel_values


def asked_patches(scene: Scene, kind: str, question: str, answer: str) -> np.ndarray | None:
    """The patches of the one object a question is about, (N,) bool; None for a question about none or about all."""
    labels = patch_labels(scene)
    words = question.rstrip("?").split()
    if kind == "number":
        return labels["kind"] == 2
    if kind == "color":
        return labels["shape"] == SHAPES.index(words[-1])
    if kind == "shape":
        return labels["color"] == tuple(COLORS).index(words[-2])
    if kind == "exist" and answer == "Yes":
        return (labels["color"] == tuple(COLORS).index(words[-2])) & (labels["shape"] == SHAPES.index(words[-1]))
    return None


def area_under_curve(scores: np.ndarray, positive: np.ndarray) -> float:
    """Chance that a positive's score is above a negative's, ties counting half."""
    difference = scores[positive][:, None] - scores[~positive][None, :]
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--model-path", default=checkpoint_path(), help="the embedded model if not given")
    parser.add_argument("--split", choices=("val", "test"), default="val", help="whose scenes are drawn")
    parser.add_argument("--images", type=at_least(1), default=200, help="how many")
    return parser


def measure(args: argparse.Namespace) -> None:
    """Print the area for each kind of question."""
    _, model, _, _ = load_pretrained_model(
        args.model_path, None, "llava-shapes", device="cpu", pruner="cdpruner", visual_token_num=36, dtype=torch.float32
    )
    tower = model.get_vision_tower()
    rng = scene_generator(args.split, 0)
    areas: dict[str, list[float]] = defaultdict(list)
    for _ in tqdm(range(args.images)):
        scene = draw_scene(rng, args.split)
        pixels = pixel_values([render(scene)])
        for kind, question, answer in ask_all(scene, rng):
            positive = asked_patches(scene, kind, question, answer)
            if positive is not None and positive.any():
                _, cues = tower.cues(pixels, frozenset({"relevance"}), [question])
                areas[kind].append(area_under_curve(cues["relevance"][0].numpy(), positive))
    for kind, values in areas.items():
        margin = 1.96 * np.std(values) / len(values) ** 0.5
        print(f"{kind:8s} {np.mean(values):.3f} +- {margin:.3f} ({len(values)} questions)")


if __name__ == "__main__":
    run_program(build_parser(), measure)
