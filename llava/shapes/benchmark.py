"""Writes the shapes benchmark: pictures, LLaVA's question file and the labels.

python -m llava.shapes.benchmark --output-dir DIR --split test --num-questions 1000 --seed 0
"""

import argparse
import json
import logging
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from llava.command import SEED, Parser, at_least, run_program
from llava.shapes.questions import QUESTION_TYPES, SHORT_ANSWER_PROMPT
from llava.shapes.scenes import FAMILIES, Scene, draw_scene, render, scene_generator

logger = logging.getLogger(__name__)


def ask_all(scene: Scene, rng: np.random.Generator) -> list[tuple[str, str, str]]:
    """One question of every type that the scene allows, as (type, question, answer)."""
    asked = ((kind, ask(scene, rng)) for kind, ask in QUESTION_TYPES.items())
    return [(kind, *pair) for kind, pair in asked if pair]


def asked_scenes(split: str = "test", seed: int = 0) -> Iterator[tuple[Scene, list[tuple[str, str, str]]]]:
    """Scenes without end, each with what ``ask_all`` asks about it; the same arguments give the same scenes.

    Raises:
        ValueError: unknown split.
    """
    rng = scene_generator(split, seed)
    while True:
        scene = draw_scene(rng, split)
        yield scene, ask_all(scene, rng)


def sample_scenes(count: int) -> list[Scene]:
    """Scenes for whoever has no pictures at hand: the first of the benchmark's test split."""
    return [scene for scene, _ in islice(asked_scenes(), count)]


def write_benchmark(output_dir: str | Path, split: str = "test", num_questions: int = 1000, seed: int = 0) -> None:
    """Writes `shapes_<split>.jsonl`, `shapes_<split>_labels.jsonl` and `images/` into `output_dir`.

    Every scene is asked one question of each type it allows, until there are `num_questions`. The same arguments
    give the same bytes.

    Raises:
        ValueError: unknown split, or fewer than one question.
    """
    if num_questions < 1:
        raise ValueError(f"num_questions is {num_questions}: at least 1 is needed")
    scenes = asked_scenes(split, seed)
    folder = Path(output_dir)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    questions, labels = [], []
    with tqdm(total=num_questions, desc=f"shapes {split}", unit="question") as bar:
        while len(questions) < num_questions:
            scene, asked = next(scenes)
            image = f"{split}_{seed}_{bar.n:06d}.png"
            Image.fromarray(render(scene)).save(folder / "images" / image)
            for kind, question, answer in asked[: num_questions - len(questions)]:
                row = {"question_id": len(questions), "image": image, "text": f"{question}\n{SHORT_ANSWER_PROMPT}"}
                questions.append(row | {"category": kind})
                labels.append({"question_id": row["question_id"], "answer": answer, "category": kind})
            bar.update(len(questions) - bar.n)
    for name, rows in ((f"shapes_{split}.jsonl", questions), (f"shapes_{split}_labels.jsonl", labels)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    logger.info("%d questions about %d scenes in %s", len(questions), len({q["image"] for q in questions}), folder)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(
        prog="python -m llava.shapes.benchmark",
        description="Draw the shapes benchmark: pictures, questions and labels.",
    )
    parser.add_argument("--output-dir", required=True, help="folder of pictures, questions and labels")
    parser.add_argument("--split", choices=list(FAMILIES), default="test", help="whose scenes are drawn")
    parser.add_argument("--num-questions", type=at_least(1), default=1000, help="how many")
    parser.add_argument("--seed", type=SEED, default=0, help="of scenes and questions")
    return parser


def draw(args: argparse.Namespace) -> None:
    """Draw what the command line asks for."""
    write_benchmark(args.output_dir, args.split, args.num_questions, args.seed)


def main() -> None:
    """Run the command line."""
    run_program(build_parser(), draw)


if __name__ == "__main__":
    main()
