"""The plain forms choose what the official code chose, so that comparing with them means something."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from llava.bench import reference

GOLDEN = Path(__file__).parent.parent / "golden"


def cases(method):
    """The golden files of a method that the plain form covers."""
    names = [path.name for path in sorted(GOLDEN.glob(f"{method}_*.npz"))]
    return pytest.mark.parametrize("name", [n for n in names if "theta" not in n and "qwen" not in n])


def load(name):
    with np.load(GOLDEN / name) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays if arrays[key].dtype.kind in "fi"}


def relevance(case):
    cosine = normalize(case["image_embeds"], dim=-1) @ normalize(case["text_embeds"], dim=-1).T
    return -cosine.mean(dim=-1)


@cases("cdpruner")
def test_cdpruner(name):
    case = load(name)
    assert torch.equal(reference.cdpruner(case["features"], relevance(case), int(case["T"])), case["indices"])


@cases("divprune")
def test_divprune(name):
    case = load(name)
    budget = round(case["ratio"].item() * len(case["features"]))
    assert torch.equal(reference.divprune(case["features"].unsqueeze(0), budget), case["indices"])


@cases("vispruner")
def test_vispruner(name):
    case = load(name)
    attention, ratio = case["cls_attention"].mean(dim=1), case["important_ratio"].item()
    assert torch.equal(reference.vispruner(case["features"], attention, int(case["T"]), ratio), case["indices"])


@cases("mfpruner")
def test_mfpruner(name):
    case = load(name)
    attention = case["cls_attention"].mean(dim=1)
    chosen = reference.mfpruner(case["features"], attention, relevance(case), int(case["T"]))
    assert torch.equal(chosen, case["indices"])


@cases("scope")
def test_scope(name):
    case = load(name)
    attention = case["cls_attention"].mean(dim=1)
    chosen = reference.scope(case["features"], attention, int(case["T"]), case["alpha"].item())
    assert torch.equal(chosen, case["indices"])


@cases("mmtok")
def test_mmtok(name):
    case = load(name)
    if "exclude" in case or "features" not in case:
        pytest.skip("the plain form knows no border and no text")
    given = (case["features"], case["embeds"], case["text_tokens"], int(case["T"]))
    options = {option: case[option].item() for option in ("tau_tv", "tau_vv", "alpha")}
    assert torch.equal(reference.mmtok(*given, **options), case["indices"])


@cases("eadp")
def test_eadp(name):
    case = load(name)
    given = (case["embeds"], relevance(case), case["image_embeds"], case["text_sequence"], int(case["T"]))
    assert torch.equal(reference.eadp(*given, case["alpha"].item(), case["beta"].item()), case["indices"])
