"""Budgets that follow the picture, of a checkpoint in either format: the same picture keeps as much."""

import shutil
from pathlib import Path

import pytest

from llava.asking.load import load
from llava.asking.questions import Question
from llava.command import run_program
from llava.eval.ask.calibrate import build_parser, calibrate
from llava.selecting.references import FILE, read_erank_refs

PRUNER = {"pruner": "divprune", "visual_token_num": 16, "device": "cpu"}
BUDGETS = [{"budget": "spectral", "erank_ref": 15.5}, {"budget": "mass", "mass": 0.3}]


@pytest.fixture(scope="module", autouse=True)
def supported(can_prune) -> None:
    """What is converted is pruned by ``prune``."""


@pytest.fixture
def asked(scenes) -> list[Question]:
    return [scene.question() for scene in scenes]


@pytest.mark.parametrize("budget", BUDGETS)
def test_both_formats_keep_as_much_of_a_picture(llava_shapes, converted, asked, budget):
    clip = {"relevance": "clip_text", "text_tower": str(Path(llava_shapes).parent / "clip-shapes")}
    native, hosted = load(llava_shapes, **PRUNER, **budget), load(converted, **PRUNER, **budget, **clip)
    kept = [
        [answer.budgets[0]["k"] for answer in model.answers(asked, 5, max_new_tokens=4)] for model in (native, hosted)
    ]
    assert kept[0] == kept[1] and len(set(kept[0])) > 1


@pytest.mark.parametrize("budget", BUDGETS)
def test_answers_say_what_their_images_were_given_whatever_the_batch(llava_shapes, converted, asked, budget):
    for checkpoint in (llava_shapes, converted):
        model = load(checkpoint, **PRUNER, **budget)
        alone, together = (model.answers(asked, size, max_new_tokens=4) for size in (1, 5))
        assert [(each.text, each.budgets) for each in alone] == [(each.text, each.budgets) for each in together]
        assert all(each.budgets[0]["kept"] == each.visual_tokens for each in alone)


def test_a_checkpoint_of_either_format_is_calibrated_alike(llava_shapes, converted, scenes, tmp_path):
    shutil.copytree(Path(llava_shapes).parent, tmp_path / "native")
    shutil.copytree(converted, tmp_path / "hosted")
    folders = tmp_path / "native" / "llava-shapes", tmp_path / "hosted"
    shown = Path(scenes[0].image).parent
    for folder in folders:
        (folder / FILE).unlink(missing_ok=True)
        words = ["--model-path", folder, "--image-folder", shown, "--visual_token_num", "36", "--store"]
        run_program(build_parser(), calibrate, [*map(str, words), "--device", "cpu"])
    native, hosted = map(read_erank_refs, folders)
    assert native.keys() == {36} and hosted[36] == pytest.approx(native[36], rel=1e-4)
    assert load(folders[1], **PRUNER, budget="spectral").record.options.erank_ref == hosted[36]
