"""TextVQA, validation: questions about text in images. https://arxiv.org/abs/1904.08920."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava.eval.tasks.base import SHORT, DataFile, Images, Task, asked
from llava.eval.tasks.matching import check_same_questions

SOURCE = "https://dl.fbaipublicfiles.com/textvqa/"


def match(questions: Sequence[dict[str, Any]], annotations: Sequence[Sequence[dict[str, Any]]], images: Path) -> None:
    """Raise InputError unless every annotated question is asked once."""
    ids = (str(question["question_id"]) for question in questions)
    check_same_questions(ids, (str(entry["image_id"]) for entry in annotations[0]))


TEXTVQA = Task(
    name="textvqa",
    title="TextVQA",
    folder="textvqa",
    asks=SHORT,
    splits=asked("llava_textvqa_val_v051_ocr", 5000),
    images=Images("train_images", f"{SOURCE}images/train_val_images.zip"),
    annotations=(
        DataFile(
            "TextVQA_0.5.1_val.json",
            f"{SOURCE}data/TextVQA_0.5.1_val.json",
            5000,
            {"image_id": (int, str), "question": str, "answers": list[str]},
            in_data=True,
            member="data",
        ),
    ),
    match=match,
)
