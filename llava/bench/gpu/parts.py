"""The parts of a run, in the order of their importance; each runs as a process of its own and writes what it has."""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import torch

from llava.bench.gpu.setting import TESTS, Rows, Setting, Wrong
from llava.command import Parser, run_program
from llava.records import replace_file

MARKED = re.compile(r"mark\.gpu\b")
SMALL_CASES = (("cdpruner", 36), ("divprune", 36), ("vispruner", 36), ("mfpruner", 36))


@dataclass(frozen=True)
class Part:
    """What one process does.

    Args:
        run: yields its rows; a row with nothing but a "note" says what could not be measured.
        limit_s: after which the process is ended.
        packages: without which the part is left out.
    """

    run: Callable[[Setting], Rows]
    limit_s: float
    packages: tuple[str, ...] = ("transformers",)


def golden(setting: Setting) -> Rows:
    from llava.bench.gpu import golden

    yield from golden.run(setting)


def tests(setting: Setting) -> Rows:
    """A row per test that needs a GPU; without one they are collected alone, which gives none."""
    marked = [str(path) for path in sorted(TESTS.rglob("test_*.py")) if MARKED.search(path.read_text("utf-8"))]
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "tests.xml"
        command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", f"--junitxml={record}"]
        command += ["--collect-only"] if setting.device == "cpu" else []
        status = subprocess.run([*command, *marked], cwd=TESTS.parent).returncode
        cases = list(ElementTree.parse(record).iter("testcase")) if record.is_file() else []
    for case in cases:
        outcome = next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), "passed")
        yield {"test": case.get("name"), "outcome": outcome, "seconds": float(case.get("time", 0))}
    if status or (setting.device == "cuda" and not cases):
        raise Wrong(f"pytest -m gpu ended with status {status} after {len(cases)} tests")


def image_side(setting: Setting) -> Rows:
    from llava.bench.gpu import image_side

    yield from image_side.run(setting)


def saturation(setting: Setting) -> Rows:
    from llava.bench.gpu import saturation

    yield from saturation.run(setting)


def select(setting: Setting) -> Rows:
    """Suite ``select``; on a GPU with a captured graph of each selection."""
    from llava.bench import select

    few = [select.Case(method, 1, tokens, 16, 4) for method, tokens in SMALL_CASES] if setting.small else None
    yield from select.run(setting.shape.width, setting.where, setting.reps(5), 0, setting.official_root, few)


def stages(setting: Setting) -> Rows:
    """Suites ``clip``, ``prefill``, of one prompt and of 16, and ``e2e``."""
    from llava.bench import clip, e2e, prefill

    model, shape, where, reps = setting.model(), setting.shape, setting.where, setting.reps(5)
    yield from clip.run(model.get_vision_tower(), where, reps, 0)
    grids = ((16, 4),) if setting.small else (prefill.LLAVA_15, prefill.LLAVA_NEXT)
    for batch in (1, 16):
        for row in prefill.run(model, shape, where, setting.reps(5 if batch == 1 else 3), grids, batch=batch):
            yield {"suite": "prefill"} | row
    yield from e2e.run(model, shape, where, reps, 0)


def answers(setting: Setting) -> Rows:
    from llava.bench.gpu import answers

    yield from answers.run(setting)


def embedded(setting: Setting) -> Rows:
    """Suite ``serve`` on the embedded model."""
    from llava.bench import serve
    from llava.model.builder import load_pretrained_model
    from llava.pruners import resolve_pruner
    from llava.shapes import checkpoint_path

    _, model, _, _ = load_pretrained_model(checkpoint_path(), None, "llava-shapes", device=setting.device)
    pruner = resolve_pruner("cdpruner", visual_token_num=model.get_vision_tower().num_patches // 8)
    batches, seconds = ((1,), 0.0) if setting.small else ((1, 32), 1.0)
    yield from serve.run(
        model, "llava-shapes", pruner, setting.where, setting.memory_gb, batches, seconds, setting.probes
    )


PARTS = {
    "golden": Part(golden, 90, ("numpy", "transformers")),
    "tests": Part(tests, 120, ("pytest", "hypothesis", "transformers")),
    "image_side": Part(image_side, 150),
    "saturation": Part(saturation, 180),
    "select": Part(select, 90),
    "stages": Part(stages, 120),
    "answers": Part(answers, 120),
    "embedded": Part(embedded, 90, ("transformers", "accelerate")),
}


def write(part: Part, setting: Setting, file: Path) -> None:
    """Run a part; after each row write all so far, at the end also why it ended before its time."""
    result: dict[str, object] = {"rows": [], "notes": []}
    try:
        for row in part.run(setting):
            kind, value = ("notes", row["note"]) if set(row) == {"note"} else ("rows", row)
            json.dumps(value, allow_nan=False)  # what is no number is an error of this part
            result[kind].append(value)
            replace_file(file, json.dumps(result))
        result["done"] = True
    except Exception as error:  # whatever it is, the other parts go on and the user reads it
        traceback.print_exc()
        result["reason"] = str(error) if isinstance(error, Wrong) else f"{type(error).__name__}: {error}"
    replace_file(file, json.dumps(result))


def build_parser() -> argparse.ArgumentParser:
    """What the run tells one of its processes."""
    parser = Parser(prog="python -m llava.bench.gpu.parts", description=__doc__)
    parser.add_argument("part", choices=list(PARTS), help="what is measured")
    parser.add_argument("file", type=Path, help="where its rows go")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="where it is measured")
    parser.add_argument("--small", action="store_true", help="sizes that a CPU takes")
    parser.add_argument("--official-root", type=Path, help="folder of the methods' own repositories, timed too")
    return parser


def run(args: argparse.Namespace) -> None:
    """Run the part."""
    if args.device == "cpu":
        torch.set_num_threads(1)
    write(PARTS[args.part], Setting(args.device, args.small, args.official_root), args.file)


if __name__ == "__main__":
    run_program(build_parser(), run)
