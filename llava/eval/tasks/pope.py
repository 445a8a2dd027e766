"""POPE, "is there a THING in the image?", in three categories of things. https://arxiv.org/abs/2305.10355."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava.asking.prompts import SHORT_ANSWER
from llava.eval.tasks.base import SHORT, DataFile, Images, Task, asked
from llava.eval.tasks.matching import check_same_questions

RELEASE = "https://github.com/AoiDragon/POPE/tree/e3e39262c85a6a83f26cf5094022a782cb0df58d/output/coco"
LABEL_KEYS = {"image": str, "text": str, "label": str}


def match(questions: Sequence[dict[str, Any]], annotations: Sequence[Sequence[dict[str, Any]]], images: Path) -> None:
    """Raise InputError unless every labelled question is asked once."""
    given = [(question["image"], question["text"].replace(SHORT_ANSWER, "")) for question in questions]
    check_same_questions(given, ((label["image"], label["text"]) for labels in annotations for label in labels))


POPE = Task(
    name="pope",
    title="POPE",
    folder="pope",
    asks=SHORT,
    splits=asked("llava_pope_test", 8910, category=str),
    images=Images("val2014", "http://images.cocodataset.org/zips/val2014.zip"),
    annotations=tuple(
        DataFile(f"coco/coco_pope_{category}.json", RELEASE, rows, LABEL_KEYS, in_data=True, lines=True)
        for category, rows in (("random", 2910), ("popular", 3000), ("adversarial", 3000))
    ),
    match=match,
)
