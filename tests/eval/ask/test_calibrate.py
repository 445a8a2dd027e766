"""The command that measures what spectral budgets refer to, on the embedded model."""

import json
import shutil
from pathlib import Path
from statistics import fmean

import pytest

from llava.asking.load import load
from llava.asking.questions import Question
from llava.command import run_program
from llava.eval.ask.calibrate import build_parser, calibrate
from llava.images import open_image
from llava.records import read_json
from llava.selecting.references import FILE, read_erank_refs
from llava.shapes import checkpoint_path
from llava.shapes.benchmark import write_benchmark


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    write_benchmark(folder, "val", num_questions=150)
    return folder


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """The embedded model, with nothing measured."""
    for name in ("llava-shapes", "clip-shapes"):
        shutil.copytree(Path(checkpoint_path()).parent / name, tmp_path / name)
    (tmp_path / "llava-shapes" / FILE).unlink()
    return tmp_path / "llava-shapes"


def kept(folder: Path, checkpoint: Path | str | None, tokens: int, **more) -> list[int]:
    """What the images in a folder keep."""
    model = load(checkpoint, device="cpu", pruner="uniform", visual_token_num=tokens, budget="spectral", **more)
    questions = [Question("What?", lambda path=path: [open_image(path)]) for path in sorted(folder.glob("*.png"))]
    return [answer.visual_tokens for answer in model.answers(questions, 8, max_new_tokens=1)]


def run(*words: str) -> None:
    run_program(build_parser(), calibrate, [*words, "--device", "cpu"])


def test_what_is_measured_is_printed_and_stored_and_keeps_what_is_wanted(drawn, checkpoint, capsys):
    shown = ("--question-file", str(drawn / "shapes_val.jsonl"), "--image-folder", str(drawn / "images"))
    run("--model-path", str(checkpoint), *shown, "--visual_token_num", "16", "60", "--store")
    printed = capsys.readouterr().out
    stored = read_erank_refs(checkpoint)
    assert set(stored) == {16, 60} and f"--visual_token_num 60 --budget spectral --erank_ref {stored[60]:g}" in printed
    count = len(list((drawn / "images").glob("*.png")))
    assert read_json(checkpoint / FILE, dict)["erank_ref"]["16"]["images"] == count
    for wanted in stored:
        found = kept(drawn / "images", checkpoint, wanted)
        assert fmean(found) == pytest.approx(wanted, rel=0.02) and len(set(found)) > 3
        assert fmean(found) == pytest.approx(
            read_json(checkpoint / FILE, dict)["erank_ref"][str(wanted)]["mean"], abs=1e-3
        )


def test_a_folder_of_images_will_do_and_nothing_is_stored_unasked(drawn, checkpoint, capsys):
    words = ("--model-path", str(checkpoint), "--image-folder", str(drawn / "images"), "--visual_token_num", "32")
    run(*words, "--num-images", "5")
    assert "over 5 images" in capsys.readouterr().out and not (checkpoint / FILE).exists()


def test_the_embedded_model_brings_its_own(tmp_path):
    """The pictures of its benchmark are other scenes than it was measured with, and keep what is wanted too."""
    write_benchmark(tmp_path, "test")
    assert fmean(kept(tmp_path / "images", None, 36)) == pytest.approx(36, rel=0.02)
    assert {16, 18, 36, 72} <= read_erank_refs(checkpoint_path()).keys()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--image-folder", "{images}", "--visual_token_num", "144"], "--visual_token_num 144: 144 tokens per tile"),
        (["--visual_token_num", "32"], "--image-folder or --question-file is missing"),
        (["--image-folder", "{empty}", "--visual_token_num", "32"], "no images"),
        (["--question-file", "{questions}", "--visual_token_num", "32"], "no such image"),
        (["--image-folder", "{images}", "--visual_token_num", "32", "--device", "tpu"], "--device"),
        (["--image-folder", "{broken}", "--visual_token_num", "32"], "cannot measure"),
    ],
)
def test_what_cannot_be_measured_is_one_line(drawn, checkpoint, tmp_path, capsys, words, message):
    for name in ("empty", "broken"):
        (tmp_path / name).mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"no image")
    (tmp_path / "questions.jsonl").write_text(json.dumps({"image": "missing.png"}) + "\n")
    places = {name: tmp_path / name for name in ("empty", "broken")}
    places |= {"images": drawn / "images", "questions": tmp_path / "questions.jsonl"}
    with pytest.raises(SystemExit) as ended:
        filled = [word.format(**places) for word in words]
        run_program(build_parser(), calibrate, ["--model-path", str(checkpoint), "--device", "cpu", *filled])
    assert message in str(ended.value) and "\n" not in str(ended.value)


@pytest.mark.parametrize("words", [["--visual_token_num", "15"], []])
def test_a_number_of_tokens_is_needed_that_a_budget_can_follow(words, capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args(words)
    assert "--visual_token_num" in capsys.readouterr().err
