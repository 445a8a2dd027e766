"""Checkpoints as vLLM reads them, and the questions that both ways are asked."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from llava.shapes import checkpoint_path
from llava.shapes.benchmark import write_benchmark

from .serving import Asked, Own

REPOSITORY = Path(__file__).parents[2]
E2E = REPOSITORY / "tests" / "e2e"


@pytest.fixture(scope="session", autouse=True)
def one_process():
    """vLLM in the process of the tests, which look into its model, and with little memory for its cache."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"
    os.environ["VLLM_NO_USAGE_STATS"] = "1"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")


@pytest.fixture(scope="session")
def converted(tmp_path_factory):
    """A function from a checkpoint of LLaVA's to a folder of the same in Transformers' format."""
    made: dict[Path, Path] = {}

    def convert(source: str | Path) -> Path:
        if Path(source) not in made:
            target = tmp_path_factory.mktemp("hf") / Path(source).name
            words = ["scripts/convert_llava_to_hf.py", "--model-path", str(source), "--output-path", str(target)]
            subprocess.run([sys.executable, *words], check=True, cwd=REPOSITORY)
            made[Path(source)] = target
        return made[Path(source)]

    return convert


@pytest.fixture(scope="session")
def shapes_hf(converted) -> Path:
    """The embedded model."""
    return converted(checkpoint_path())


@pytest.fixture(scope="session")
def shapes() -> Own:
    """The embedded model, answered by this project."""
    return Own(checkpoint_path())


@pytest.fixture(scope="session")
def questions(tmp_path_factory) -> list[Asked]:
    """200 questions of the shapes benchmark; every other picture is given other sides than the encoder's."""
    folder = tmp_path_factory.mktemp("shapes")
    write_benchmark(folder, "test", 200, seed=3)
    rows = [json.loads(line) for line in (folder / "shapes_test.jsonl").read_text(encoding="utf-8").splitlines()]
    asked = []
    for number, row in enumerate(rows):
        picture = Image.open(folder / "images" / row["image"]).convert("RGB")
        if number % 2:
            picture = picture.resize([(96, 150), (200, 96), (131, 77)][number % 3], Image.BICUBIC)
        asked.append(Asked(f"<image>\n{row['text']}", [picture]))
    return asked


@pytest.fixture(scope="session")
def photos() -> list[Image.Image]:
    """Pictures of four shapes."""
    return [Image.open(path).convert("RGB") for path in sorted((E2E / "images").glob("*.png"))]
