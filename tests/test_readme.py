"""What the README shows is there and runs."""

import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from llava.mm_utils import process_images, tokenizer_image_token
from llava.model.builder import load_pretrained_model
from llava.shapes import checkpoint_path

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: file.name)
def test_every_relative_link_leads_somewhere(document):
    links = re.findall(r"\]\(([^)#]+)\)", document.read_text())
    dead = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert not dead


def test_the_six_lines_of_python_answer_the_question(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    exec(code, {})
    assert capsys.readouterr().out == "triangle 36 144\nring\n"


def test_nobody_is_sent_to_the_registrys_package_of_this_name():
    texts = [*DOCUMENTS, *(file for folder in ("llava", "scripts") for file in (ROOT / folder).rglob("*.[psm][yhd]"))]
    names_it = re.compile(r"pip3? install [^\n]*(?<![\w./-])llava(?![\w/-])")
    assert not [str(file) for file in texts if names_it.search(file.read_text(encoding="utf-8"))]


def test_the_readme_names_the_pythons_that_the_tests_can_run_with():
    (pythons,) = re.findall(r"^# Python: (.*)$", (ROOT / ".ci" / "constraints.txt").read_text(), re.MULTILINE)
    first, *_, last = pythons.split()
    assert f"Python {first} to {last}" in (ROOT / "README.md").read_text()


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_pruner_of_a_users_own_prunes_a_model():
    (code, *_) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "adding_a_pruner.md").read_text(), re.DOTALL)
    said = {}
    exec(code, said)
    tokenizer, model, processor, _ = load_pretrained_model(checkpoint_path(), None, "llava", pruner=said["pruner"])
    image = Image.open(ROOT / "docs" / "scene.png")
    pixels = process_images([image], processor, model.config)
    ids = tokenizer_image_token("USER: <image>\nHow many? ASSISTANT:", tokenizer, return_tensors="pt").unsqueeze(0)
    model.generate(ids, images=pixels, image_sizes=[image.size], texts="How many?", max_new_tokens=1)
    assert model.last_prune.visual_tokens == [36]


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), 3e38])
@pytest.mark.parametrize("name", ["SpreadAttention", "StandsOut"])
def test_the_pruners_shown_keep_the_budget_whatever_the_cues_are(name, value):
    pieces = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "adding_a_pruner.md").read_text(), re.DOTALL)
    said = {}
    exec("\n".join(pieces[:2]), said)
    generator = torch.Generator().manual_seed(0)
    cues = {cue: torch.randn(2, 24, generator=generator) for cue in ("cls_attention", "relevance")}
    cues |= {cue: torch.randn(2, 24, 5, generator=generator) for cue in ("features", "embeds")}
    for cue in cues.values():
        cue[0, :3] = value
    pruner = said[name](visual_token_num=3)
    keep = pruner(said["VisualCues"](**cues))
    assert keep.shape == (2, 3) and bool((keep.diff(dim=1) > 0).all())
