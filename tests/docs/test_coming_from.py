"""The table of what stands here for a release's commands and calls."""

import ast
import re
import shlex
from pathlib import Path

import pytest
import torch

from llava.lmms import loading
from llava.mm_utils import tokenizer_image_token
from llava.model.builder import load_pretrained_model
from llava.pruners import option_names, resolve_pruner
from llava.pruners.base import BUDGETS
from llava.shapes import checkpoint_path

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs/coming_from.md").read_text(encoding="utf-8")
TYPED = (
    "bash scripts/v1_5/eval/vqav2.sh 128 0.5",
    "bash scripts/v1_5/eval/mme.sh 64",
    "bash scripts/v1_6/eval/textvqa.sh 32",
    "python scripts/visualize_relevance.py",
    "bash eval_scripts/lmms_eval.sh",
    "SUBSET_RATIO=0.098",
    "LAYER_INDEX=0",
    "python tflops.py",
)
"""What the releases' own instructions say."""
ASKING = sorted(set(re.findall(r"`(python [^`|]*lmms_eval --model llava_pruned[^`|]*)`", PAGE)))


def rows() -> list[list[str]]:
    """The cells of every row."""
    lines = [line for line in PAGE.splitlines() if line.startswith("|") and not line.startswith(("|---", "| ---"))]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_row_has_two_cells_and_all_releases_are_there():
    assert all(len(row) == 2 and all(row) for row in rows())
    heads = {row[0] for row in rows() if row[1] == "here"}
    assert heads == {"CDPruner", "VisPruner", "MFPruner", "DivPrune", "LLaVA", "in a release"}


@pytest.mark.parametrize("command", TYPED)
def test_what_a_releases_instructions_say_has_a_row(command):
    assert any(command in row[0] for row in rows())


@pytest.mark.parametrize("command", ASKING)
def test_lmms_evals_arguments_are_those_of_the_model(command, monkeypatch):
    words = shlex.split(command)
    given = dict(pair.split("=") for pair in words[words.index("--model_args") + 1].split(","))
    given = {key: ast.literal_eval(value) if value[0].isdigit() else value for key, value in given.items()}
    loaded = []
    monkeypatch.setattr(loading, "load_llava", lambda *places, **options: loaded.append(options))
    monkeypatch.setattr(loading, "place", lambda *_: "cpu")
    loading.load_llava_pruned(given.pop("pretrained"), None, **given)
    (options,) = loaded
    pruner = {name: options[name] for name in ("pruner", *BUDGETS, *option_names()) if name in options}
    assert resolve_pruner(**pruner).keep_ratio == 0.098
    assert options.get("prune_layer") in (None, 2)


def test_some_lines_of_lmms_eval_are_shown():
    assert len(ASKING) == 3


def test_the_calls_in_python_are_those_of_the_model():
    shown = {span for row in rows() for span in re.findall("`([^`]+)`", row[1])}
    tokenizer, model, processor, _ = load_pretrained_model(
        checkpoint_path(), None, "llava", pruner="divprune", keep_ratio=0.25, device="cpu"
    )
    images = torch.zeros(1, 3, 96, 96)
    ids = tokenizer_image_token("<image> What?", tokenizer, return_tensors="pt")[None]
    known = {"model": model, "images": images, "resolve_pruner": resolve_pruner}
    for call in ("model.get_vision_tower()(images)", 'model.get_vision_tower().cues(images, {"cls_attention"})'):
        assert call in shown
    features, cues = eval('model.get_vision_tower().cues(images, {"cls_attention"})', known)
    assert torch.equal(eval("model.get_vision_tower()(images)", known), features) and list(cues) == ["cls_attention"]
    call = "ids = model.generate(ids, images=..., image_sizes=..., texts=question)"
    assert call in shown
    places = {"ids": ids, "question": "What?", "size": [(96, 96)], **known}
    written = call.replace("images=...", "images=images").replace("image_sizes=...", "image_sizes=size")
    exec(written.replace("texts", "max_new_tokens=1, texts"), places)
    assert places["ids"].shape == (1, 1)
    assert model.last_prune.visual_tokens == [36] and len(model.last_prune.keep[0]) == 36
    for call, kept in (
        ('model.set_pruner(resolve_pruner("divprune", visual_token_num=32))', 32),
        ("model.set_pruner(None)", 144),
    ):
        assert call in shown
        eval(call, known)
        model.generate(ids, images=images, image_sizes=[(96, 96)], max_new_tokens=1)
        assert model.last_prune.visual_tokens == [kept]
