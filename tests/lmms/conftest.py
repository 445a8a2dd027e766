"""The embedded model, in LLaVA's format and in Transformers', and questions about its scenes as lmms-eval asks them."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from PIL import Image

from llava.lmms.requests import Question
from llava.shapes import checkpoint_path
from llava.shapes.benchmark import write_benchmark


@dataclass(frozen=True)
class Scene:
    """A question with its answer, its image, and another answer."""

    image: Path
    text: str
    answer: str
    wrong: str

    def question(self, **changes) -> Question:
        return replace(Question(self.text, lambda: [Image.open(self.image).convert("RGB")]), **changes)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory) -> list[Scene]:
    """Twelve questions whose answers differ in length, about two images."""
    folder = tmp_path_factory.mktemp("scenes")
    write_benchmark(folder, split="test", num_questions=12, seed=3)
    names = ("shapes_test.jsonl", "shapes_test_labels.jsonl")
    asked, labels = ([json.loads(line) for line in (folder / name).read_text().splitlines()] for name in names)
    return [
        Scene(folder / "images" / question["image"], question["text"], label["answer"], "a very long ellipse")
        for question, label in zip(asked, labels, strict=True)
    ]


@pytest.fixture(scope="session")
def llava_shapes() -> str:
    return str(checkpoint_path())
