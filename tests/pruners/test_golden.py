"""Every pruner chooses exactly what the official code chose, in either form of its search."""

from pathlib import Path

import numpy as np
import pytest
import torch

from llava.pruners import PRUNERS, VisualCues
from llava.pruning.prompts import text_relevance

from .conftest import FORMS

GOLDEN = Path(__file__).parent.parent / "golden"
FILES = sorted(path for path in GOLDEN.glob("*.npz") if not path.name.startswith("anyres"))


def unit(x):
    return x / x.norm(dim=-1, keepdim=True).clamp_min(1e-12)


def relevance(case):
    return -(unit(case["image_embeds"]) @ unit(case["text_embeds"]).T).mean(dim=-1)  # (B, N)


def cdpruner(case):
    theta = None if case["theta"].isnan() else case["theta"].item()
    cues = VisualCues(features=None, embeds=case["features"], relevance=relevance(case))
    return PRUNERS["cdpruner"](int(case["T"]), theta=theta)(cues)


def divprune(case):
    cues = VisualCues(features=None, embeds=case["features"].unsqueeze(0))
    return PRUNERS["divprune"](keep_ratio=case["ratio"].item())(cues)


def vispruner(case):
    cues = VisualCues(features=case["features"], embeds=None, cls_attention=case["cls_attention"].mean(dim=1))
    return PRUNERS["vispruner"](int(case["T"]), important_ratio=case["important_ratio"].item())(cues)


def mfpruner(case):
    attention = case["cls_attention"].mean(dim=1)
    cues = VisualCues(features=None, embeds=case["features"], cls_attention=attention, relevance=relevance(case))
    return PRUNERS["mfpruner"](int(case["T"]))(cues)


def mfpruner_qwen(case):
    embeds, attention = case["image_embeds"], case["received_attention"]
    relevance = text_relevance(embeds, case["text_rows"])
    cues = VisualCues(None, embeds.unsqueeze(0), attention.unsqueeze(0), relevance.unsqueeze(0))
    return PRUNERS["mfpruner"](keep_ratio=1 - case["prune_ratio"].item(), cues="qwen_release")(cues)


CHOOSE = {f.__name__: f for f in (cdpruner, divprune, vispruner, mfpruner, mfpruner_qwen)}


def load(path):
    with np.load(path) as arrays:
        algo = arrays["algo"].item()
        return algo, {name: torch.from_numpy(arrays[name]) for name in arrays if arrays[name].dtype.kind in "fi"}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_chooses_what_the_official_code_chose(path, form):
    algo, case = load(path)
    with FORMS[form]():
        assert torch.equal(CHOOSE[algo](case), case["indices"])


def test_every_official_selection_is_represented():
    assert {load(path)[0] for path in FILES} == set(CHOOSE)


def test_tiles_normalised_apart_would_choose_otherwise():
    _, case = load(GOLDEN / "cdpruner_B5_N144_D192_C64_M2_T32.npz")
    cues = VisualCues(features=None, embeds=case["features"], relevance=relevance(case), image_index=torch.arange(5))
    assert not torch.equal(PRUNERS["cdpruner"](int(case["T"]))(cues), case["indices"])
