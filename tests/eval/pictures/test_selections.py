"""Pruning an image again keeps what it kept: told by a model of one tile and one of five, in every layout and scope."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from llava.asking.batch import generation_options
from llava.eval.ask import identity
from llava.eval.ask.dataset import QuestionDataset, Sample
from llava.eval.ask.forms import UnpaddedDataset
from llava.eval.ask.options import describe_pruner
from llava.eval.pictures import selections
from llava.eval.pictures.samples import Questions
from llava.eval.pictures.selections import Selector
from llava.pruners import PRUNERS, VisualCues, resolve_pruner
from llava.pruners.cues import INSIDE_CUES
from llava.records import InputError

E2E = Path(__file__).parents[2] / "e2e"


IMAGE = sorted((E2E / "images").glob("*"))[0]
QUESTIONS = Questions([Sample(1, "Is it red?", "Is it red?", IMAGE)], QuestionDataset)


@pytest.fixture(scope="module")
def selectors():
    found = {}

    def of(name, anyres):
        if (name, anyres) not in found:
            found[name, anyres] = Selector(str(E2E / "checkpoints" / name), {"anyres": anyres}, "cpu")
        return found[name, anyres]

    return of


@pytest.mark.parametrize(
    ("name", "anyres"),
    [("llava-v1.5-tiny", "native"), ("llava-v1.6-vicuna-tiny", "native"), ("llava-v1.6-vicuna-tiny", "fixed")],
)
@pytest.mark.parametrize(
    ("pruner", "scope"),
    [
        *((pruner, "tile") for pruner in ("none", *PRUNERS)),
        *((pruner, "image") for pruner in ("none", "divprune", "visionzip", "fastv")),  # selects, merges, inside
    ],
)
def test_as_many_patches_are_kept_as_the_language_model_read(selectors, name, anyres, pruner, scope):
    selector = selectors(name, anyres)
    dataset = selector.dataset(QUESTIONS, "vicuna_v1")
    options = {"object_layer": 2} if pruner == "hiprune" else {}  # the checkpoints have few blocks
    chosen = resolve_pruner(pruner, **({} if pruner == "none" else {"visual_token_num": 16}), **options)
    run = {"budget_scope": scope, "max_new_tokens": 1}
    if chosen is not None and chosen.needs & INSIDE_CUES:
        run["prune_layer"] = 1
    selection = selector.select(dataset, 0, describe_pruner(chosen) | {"run": run})
    record = selector.loaded.model.last_prune
    assert selection.visual_tokens == record.visual_tokens[0]
    assert sum(mask.sum() for mask in selection.masks) == record.visual_tokens[0] - record.newline_tokens[0]
    assert len(selection.masks) == len(selector.views(dataset, 0))


def test_the_pruner_of_the_record_is_the_one_that_prunes(selectors):
    selector = selectors("llava-v1.5-tiny", "native")
    dataset = selector.dataset(QUESTIONS, "vicuna_v1")
    cues = VisualCues(features=torch.ones(1, 576, 2), embeds=torch.ones(1, 576, 2))
    for name in ("uniform", "random"):
        pruner = resolve_pruner(name, visual_token_num=40)
        (mask,) = selector.select(dataset, 0, describe_pruner(pruner) | {"run": {"max_new_tokens": 1}}).masks
        assert np.flatnonzero(mask).tolist() == pruner(cues)[0].tolist()


def test_views_show_what_the_encoder_sees_for_each_program(selectors, tmp_path):
    Image.new("RGB", (40, 20), (250, 10, 10)).save(tmp_path / "wide.png")
    samples = [Sample(1, "?", "?", tmp_path / "wide.png")]
    selector = selectors("llava-v1.5-tiny", "native")
    corners = {}
    for make_dataset in (QuestionDataset, UnpaddedDataset):
        (view,) = selector.views(selector.dataset(Questions(samples, make_dataset), "vicuna_v1"), 0)
        corners[make_dataset] = view.getpixel((0, 0))
    assert corners == {QuestionDataset: (122, 116, 104), UnpaddedDataset: (250, 10, 10)}


def test_positions_layer_scope_and_the_cutting_of_texts_are_those_of_the_answer_and_of_no_other(selectors):
    selector = selectors("llava-v1.5-tiny", "native")
    model, dataset = selector.loaded.model, selector.dataset(QUESTIONS, "vicuna_v1")
    answer = describe_pruner(resolve_pruner("cdpruner", visual_token_num=16))

    def told(**run):
        selector.select(dataset, 0, answer | {"run": {"max_new_tokens": 1} | run})
        chunking = model.get_vision_tower().relevance.text_chunking
        assert chunking == model.text_chunking
        return model.positions, model.prune_layer, model.budget_scope, chunking

    usual = ("compact", 0, None, "release")
    assert told() == usual
    assert told(positions="original", budget_scope="image") == ("original", 0, "image", "release")
    assert told(text_chunking="bos_eos") == ("compact", 0, None, "bos_eos")
    assert told(prune_layer=1) == ("original", 1, None, "release")
    assert told() == usual


def test_an_answer_with_original_positions_is_found_again(selectors):
    selector = selectors("llava-v1.5-tiny", "native")
    model, dataset = selector.loaded.model, selector.dataset(QUESTIONS, "vicuna_v1")
    pruner, texts = resolve_pruner("divprune", visual_token_num=16), {}
    for positions in ("original", "compact"):
        model.positions, model.prune_layer = positions, 0
        model.set_pruner(pruner)
        (answer,) = selector.loaded.answer_items([dataset.item(0, dataset[0])], generation_options())
        texts[positions] = answer.text
    assert texts["original"] != texts["compact"]
    for positions, text in texts.items():
        found = selector.select(dataset, 0, describe_pruner(pruner) | {"run": {"positions": positions}})
        assert found.text == text


def test_numerics_are_those_of_the_run_as_far_as_the_device_has_them(monkeypatch):
    asked = []
    monkeypatch.setattr(selections, "load_model", lambda args, pruner: asked.append(args))
    checkpoint = str(E2E / "checkpoints" / "llava-v1.5-tiny")
    run = {"dtype": "float16", "attention": "flash_attention_2", "vision_dtype": "float32", "model_base": "a/b"}
    Selector(checkpoint, run | {"anyres": "fixed"}, "cpu")
    Selector(checkpoint, {"dtype": "bfloat16", "attention": "eager"}, "cpu")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    Selector(checkpoint, run, None)
    names = ("dtype", "attn_implementation", "vision_dtype", "model_base", "anyres")
    assert [tuple(getattr(args, name) for name in names) for args in asked] == [
        (None, None, "float32", "a/b", "fixed"),
        ("bfloat16", "eager", None, None, "native"),
        ("float16", "flash_attention_2", "float32", "a/b", "native"),
    ]


def test_a_checkpoint_of_other_files_than_the_one_that_answered_is_refused(monkeypatch):
    monkeypatch.setattr(selections, "load_model", lambda args, pruner: None)
    checkpoint = str(E2E / "checkpoints" / "llava-v1.5-tiny")
    noted = identity.digest(identity.of_run(checkpoint=checkpoint)["checkpoint"])
    Selector(checkpoint, {"files": {"checkpoint": noted}}, "cpu")
    with pytest.raises(InputError, match="--checkpoint .*: has other files than the one that gave the answers"):
        Selector(checkpoint, {"files": {"checkpoint": "0" * 16}}, "cpu")
