"""The programs that ask questions write the answers that are recorded, with every pruner and on every kind of model."""

import base64
import io
import json
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from llava.eval.ask import program as evaluation
from llava.shapes import checkpoint_path
from llava.shapes.benchmark import write_benchmark

from .recording import GOLDEN, PRUNERS, Recording

RECORDED = GOLDEN / "answers" / "native.json"
CHECKPOINTS = Path(__file__).parent.parent / "e2e" / "checkpoints"
QUESTIONS = 8
LOADER = "model_vqa_loader"
FEW = {"shapes": QUESTIONS, "tiny 1.5": 2, "tiny 1.6 fixed": 1, "tiny 1.6 native": 1}
"""Models, and how many questions each is asked where time matters."""
MODELS = {
    "shapes": [str(checkpoint_path())],
    "tiny 1.5": [str(CHECKPOINTS / "llava-v1.5-tiny")],
    "tiny 1.6 fixed": [str(CHECKPOINTS / "llava-v1.6-vicuna-tiny"), "--anyres", "fixed"],
    "tiny 1.6 native": [str(CHECKPOINTS / "llava-v1.6-vicuna-tiny")],
}
PRUNER_WORDS = {
    "none": ["--pruner", "none"],
    **{name: ["--pruner", name, "--visual_token_num", "6"] for name in PRUNERS},
    **{f"{name} at layer 1": ["--pruner", name, "--visual_token_num", "6", "--prune_layer", "1"] for name in PRUNERS},
}
OTHER_PROGRAMS = {
    "model_vqa": "questions.jsonl",
    "model_vqa_mmbench": "table.tsv",
    "model_vqa_qbench": "quality.json",
    "model_vqa_science": "science.json",
}
OTHERS_PRUNERS = ("none", "cdpruner", "mfpruner")
NOT_HELD = ("answer_id", "latency_ms", "model_path", "versions", "commit", "files", "media", "batch_size")
"""What differs from run to run, names places, says who the checkpoint is, or how many questions were asked at once."""
OF_RUN = ("model_id", "metadata.pruner", "metadata.options", "metadata.run.")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two drawn scenes with four questions each, in the form that each program reads."""
    folder = tmp_path_factory.mktemp("questions")
    write_benchmark(folder, split="test", num_questions=QUESTIONS, seed=7)
    asked = [json.loads(line) for line in (folder / "shapes_test.jsonl").read_text().splitlines()]
    choices = ["red", "blue", "two", "circle"]
    table = ["\t".join(("index", "question", "hint", *"ABCD", "answer", "category", "image"))]
    quality, science = [], []
    for number, line in enumerate(asked[:2]):
        question, path = line["text"].split("\n")[0], folder / "images" / line["image"]
        image = base64.b64encode(as_png(path)).decode()
        table.append("\t".join((str(number), question, "Look closely.", *choices, "A", "color", image)))
        quality.append({"img_path": line["image"], "question": question, "candidates": choices})
        text = f"{'<image>' if number else ''}\n{question}\nA. red\nB. blue"
        science.append({"id": str(number), "conversations": [{"from": "human", "value": text}]})
        science[-1] |= {"image": line["image"]} if number else {}
    (folder / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in asked))
    (folder / "table.tsv").write_text("\n".join(table) + "\n")
    (folder / "quality.json").write_text(json.dumps(quality))
    (folder / "science.json").write_text(json.dumps(science))
    return folder


def as_png(path: Path) -> bytes:
    file = io.BytesIO()
    Image.open(path).save(file, "PNG")
    return file.getvalue()


def columns(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """The lines of an answers file: what all say of the run, and what they say of each question."""
    flat = [dict(entries(line)) for line in lines]
    names = list(dict.fromkeys(chain.from_iterable(flat)))
    run = {name: flat[0][name] for name in names if name.startswith(OF_RUN)}
    assert all({name: line.get(name) for name in run} == run for line in flat)
    each = {name: [line.get(name) for line in flat] for name in names if name not in run}
    return {"run": {"keys": " ".join(lines[0]), **run}, "each": each}


def entries(line: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The entries of an answer that are held, those of its metadata by their path."""
    for name, value in line.items():
        if name in ("metadata", "run"):
            yield from entries(value, f"{prefix}{name}.")
        elif name not in NOT_HELD:
            yield prefix + name, value


def first(number: int, held: dict[str, Any]) -> dict[str, Any]:
    """What is held of the first questions alone; one number for those that are the same of all of them."""
    if "each" not in held:
        return held
    each = {name: values[:number] if isinstance(values, list) else [values] for name, values in held["each"].items()}
    for name, values in each.items():
        if all(value == values[0] for value in values) and not isinstance(values[0], list | str):
            each[name] = values[0]
    return held | {"each": {name: values for name, values in each.items() if values is not None}}


@pytest.fixture
def ask(folder, tmp_path, program, monkeypatch):
    """Run a program; returns the columns of its answers, or that it was refused."""
    monkeypatch.chdir(tmp_path)  # runs are told by what they are given, not by where they are

    def run(module: str, model: str, pruner: str, number: int, noise: int = 0) -> dict[str, Any]:
        asked, answers = folder / OTHER_PROGRAMS.get(module, "questions.jsonl"), tmp_path / "answers.jsonl"
        lines = asked.read_text().splitlines(keepends=True)[:number]
        if asked.suffix == ".jsonl":
            asked = tmp_path / "asked.jsonl"
            asked.write_text("".join(lines))
        words = ["--model-path", *MODELS[model], *PRUNER_WORDS[pruner], "--conv-mode", "vicuna_v1", "--device", "cpu"]
        words += ["--questions-file" if "qbench" in module else "--question-file", str(asked), "--num_workers", "0"]
        words += ["--image-folder", str(folder / "images"), "--answers-file", str(answers), "--overwrite"]
        words += ["--temperature", "0", "--max_new_tokens", "6", "--batch_size", str(number)]
        with monkeypatch.context() as patch:
            patch.setattr(evaluation, "load_model", noisy(evaluation.load_model, noise))
            _, error = program(f"llava.eval.{module}", *words)
        if error:
            return {"refused": True}
        written = [json.loads(line) for line in answers.read_text().splitlines()]
        found = columns(written)
        if module == LOADER:  # what was asked need not be recorded again and again
            lines = list(map(json.loads, lines))
            assert found["each"].pop("question_id") == [line["question_id"] for line in lines]
            assert found["each"].pop("prompt") == [line["text"] for line in lines]
        return found

    return run


def noisy(load, seed: int):
    """``load`` with weights that are off by rounding errors; as it is for the seed 0."""

    def load_noisy(*args):
        loaded = load(*args)
        generator = torch.Generator().manual_seed(seed)
        for parameter in loaded.model.parameters() if seed else ():
            error = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.data.mul_(1 + 1e-6 * error)
        return loaded

    return load_noisy


@pytest.fixture
def hold(ask, recording, records):
    """Hold the answers to the first questions against the recorded ones; when recording, those to all.

    Of what an answer says of its run, only what is other than without a pruner is recorded.
    """

    def observe(usual: dict[str, Any] | None, module: str, model: str, pruner: str, number: int, noise: int = 0):
        found = first(number, ask(module, model, pruner, number, noise))
        if usual and "run" in found:
            names = dict.fromkeys((*usual["run"], *found["run"]))
            other = [name for name in names if found["run"].get(name) != usual["run"].get(name)]
            found["run"] = {name: found["run"].get(name) for name in other}
        return found

    def hold(module: str, model: str, pruner: str, number: int, all_of_them: int) -> None:
        case = f"{module}, {model}, {pruner}"
        usual = {**recording.known, **recording.found}.get(f"{module}, {model}, none")
        ask = partial(observe, usual if pruner != "none" else None)
        if not records:
            held = Recording.of({case: first(number, recording.known[case])})
            held.check(case, ask(module, model, pruner, number))
        elif case not in recording.found:
            again = (ask(module, model, pruner, all_of_them, noise=seed) for seed in (1, 2))
            recording.check(case, ask(module, model, pruner, all_of_them), again)

    return hold


@pytest.mark.parametrize("pruner", PRUNER_WORDS)
@pytest.mark.parametrize("model", MODELS)
def test_every_pruner_on_every_model(hold, model, pruner):
    hold(LOADER, model, pruner, FEW[model], QUESTIONS)


@pytest.mark.slow
@pytest.mark.parametrize("pruner", PRUNER_WORDS)
@pytest.mark.parametrize("model", [model for model in MODELS if FEW[model] < QUESTIONS])
def test_every_pruner_on_every_model_and_question(hold, model, pruner):
    hold(LOADER, model, pruner, QUESTIONS, QUESTIONS)


@pytest.mark.parametrize("pruner", OTHERS_PRUNERS)
@pytest.mark.parametrize(
    "model", [pytest.param(model, marks=[] if model == "shapes" else pytest.mark.slow) for model in MODELS]
)
@pytest.mark.parametrize("module", OTHER_PROGRAMS)
def test_every_program(hold, module, model, pruner):
    hold(module, model, pruner, 2, 2)


def test_nothing_else_is_recorded(recording, records):
    if records:
        pytest.skip("recording")
    loader = {f"{LOADER}, {model}, {pruner}" for model in MODELS for pruner in PRUNER_WORDS}
    others = {f"{module}, {model}, {name}" for module in OTHER_PROGRAMS for model in MODELS for name in OTHERS_PRUNERS}
    assert recording.known.keys() == loader | others
