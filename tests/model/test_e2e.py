"""What the reference codebases produced on tiny checkpoints in the real format; see tests/e2e/README.md."""

import json

import numpy as np
import PIL
import pytest
import torch
from packaging.version import Version
from PIL import Image

from llava.constants import IMAGE_TOKEN_INDEX
from llava.mm_utils import process_images, tokenizer_image_token
from llava.model.builder import load_pretrained_model
from llava.model.tiles import reading_order
from llava.pruners import resolve_pruner

from .conftest import E2E, left_pad, question_prompts

FIXED_LAYOUT = {"cdpruner", "vispruner", "mfpruner"}  # what these releases run LLaVA-NeXT on
RUNS = sorted(file.stem.rsplit("_", 1) for file in (E2E / "expected").glob("*.json"))
CASES = [
    pytest.param(checkpoint, pruner, case, id=f"{checkpoint}-{pruner}-{case}")
    for checkpoint, pruner in RUNS
    for case in json.loads((E2E / "expected" / f"{checkpoint}_{pruner}.json").read_text())
]


@pytest.fixture(scope="module")
def loaded():
    """Return a function that loads each checkpoint once per layout."""
    cache = {}

    def get(checkpoint: str, anyres: str):
        if (checkpoint, anyres) not in cache:
            path = str(E2E / "checkpoints" / checkpoint)
            options = {"device": "cpu", "dtype": "float32", "anyres": anyres}
            cache[checkpoint, anyres] = load_pretrained_model(path, None, checkpoint, **options)
        return cache[checkpoint, anyres]

    return get


def build_pruner(name: str, case: dict):
    if name == "llava":
        return None
    if name == "divprune":
        return resolve_pruner(name, keep_ratio=case["visual_token_num"] / 576)
    return resolve_pruner(name, case["visual_token_num"], important_ratio=case["important_ratio"])


@pytest.mark.parametrize(("checkpoint", "pruner", "key"), CASES)
def test_agrees_with_the_reference_code(loaded, checkpoint, pruner, key):
    case = json.loads((E2E / "expected" / f"{checkpoint}_{pruner}.json").read_text())[key]
    with np.load(E2E / "expected" / f"{checkpoint}_{pruner}.npz") as arrays:
        expected = {name.split("/")[1]: arrays[name] for name in arrays if name.startswith(f"{key}/")}
    anyres = "fixed" if pruner in FIXED_LAYOUT else "native"
    image = Image.open(E2E / "images" / case["image"])
    if "v1.6" in checkpoint and image.height > image.width and Version(PIL.__version__) < Version("13"):
        pytest.skip(f"the reference was made with Pillow 13, which rounds otherwise than {PIL.__version__} here")
    tokenizer, model, processor, _ = loaded(checkpoint, anyres)
    model.set_pruner(build_pruner(pruner, case))

    inputs = {
        "images": process_images([image], processor, model.config),
        "image_sizes": [image.size],
        "texts": case["text_tower_query"],
    }
    ids = tokenizer_image_token(case["prompt"], tokenizer, IMAGE_TOKEN_INDEX, return_tensors="pt").unsqueeze(0)
    assert ids[0].tolist() == expected["input_ids"].tolist()

    with torch.no_grad():
        embeds = model.prepare_inputs_labels_for_multimodal(ids, None, None, None, None, **inputs)[4]
        logits = model(inputs_embeds=embeds).logits[0, -1].numpy()
    generated = model.generate(ids, **inputs, max_new_tokens=12, do_sample=False)[0].tolist()
    means = embeds[0].mean(dim=-1).numpy()
    assert len(means) == case["sequence_length"]
    if case["kept"] is not None:
        assert model.last_prune.visual_tokens == [case["kept"]]

    if pruner == "mfpruner":  # the reference feeds the tokens in vote order
        means, expected["inputs_embeds_mean"] = np.sort(means), np.sort(expected["inputs_embeds_mean"])
        if case["stable"]:
            np.testing.assert_allclose(means, expected["inputs_embeds_mean"], atol=1e-4)
        return
    if case["stable"] and pruner != "vispruner":
        np.testing.assert_allclose(means, expected["inputs_embeds_mean"], atol=1e-4)
        np.testing.assert_allclose(logits, expected["last_logits"], atol=1e-2)
        assert generated == case["generated_ids"]
        return
    kept, reference = kept_sets(model.last_prune, expected)
    if pruner == "vispruner":
        check_attention_chosen(model, inputs["images"], kept, reference)
    else:
        assert len(kept & reference) >= 0.9 * len(reference)


@pytest.mark.parametrize("positions", ["compact", "original"])
@pytest.mark.parametrize("name", ["none", "cdpruner"])
@pytest.mark.parametrize("checkpoint", sorted({checkpoint for checkpoint, _ in RUNS}))
def test_a_static_cache_gives_the_same_ids(loaded, monkeypatch, checkpoint, name, positions):
    tokenizer, model, processor, _ = loaded(checkpoint, "native")
    monkeypatch.setattr(model, "positions", positions, raising=False)
    model.set_pruner(resolve_pruner(name, None if name == "none" else 18))
    texts = ["What is it?", "How many red shapes are there?"]
    images = [Image.open(file).convert("RGB") for file in sorted((E2E / "images").glob("*.png"))[:2]]
    ids, mask = left_pad(question_prompts(tokenizer, texts))
    inputs = {"images": process_images(images, processor, model.config), "image_sizes": [i.size for i in images]}
    inputs |= {"texts": texts, "attention_mask": mask, "do_sample": False, "max_new_tokens": 12, "min_new_tokens": 12}
    growing, static = (model.generate(ids, **inputs, **cache) for cache in ({}, {"cache_implementation": "static"}))
    assert growing.shape == (2, 12) and torch.equal(growing, static)


def kept_sets(record, expected) -> tuple[set, set]:
    """Return what was kept and what the reference kept, as sets of tokens."""
    (keep,) = record.keep
    if "selected" in expected:
        return set(keep.tolist()), set(expected["selected"].tolist())
    tiles, patches = expected["index_mask"].shape
    order = reading_order(tiles, patches, "spatial", (2, 2))
    kept = {divmod(patch, patches) for patch in order[keep].tolist()}
    return kept, {tuple(pair) for pair in np.argwhere(expected["index_mask"]).tolist()}


def check_attention_chosen(model, images, kept: set, reference: set) -> None:
    """VisPruner's duplicate removal is chaotic; the tokens that attention chooses are not."""
    assert len(kept) == len(reference)
    pruner = model.pruner
    tiles = images.flatten(0, -4)
    attention = model.get_vision_tower().cues(tiles, pruner.needs)[1]["cls_attention"]
    important = int(pruner.visual_token_num * pruner.important_ratio)
    chosen = attention.argsort(dim=-1, descending=True, stable=True)[:, :important]
    chosen = {(tile, token) for tile, row in enumerate(chosen.tolist()) for token in row}
    assert chosen <= kept
    assert chosen <= reference
