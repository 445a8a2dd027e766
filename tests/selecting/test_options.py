import json
from argparse import ArgumentParser

import numpy as np
import pytest

from llava.pruners import PRUNERS, resolve_pruner
from llava.selecting.options import HOSTED, NATIVE, PruningOptions, add_pruning_args, check_choice


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget_scope": "batch"}, "budget_scope 'batch' is not one of tile, image"),
        ({"positions": "gaps"}, "positions 'gaps' is not one of compact, original"),
        ({"text_chunking": None}, "text_chunking None is not one of release, bos_eos"),
        ({"attention": "sent"}, "attention 'sent' is not one of cls, received"),
        ({"relevance": "siglip"}, "relevance 'siglip' is not one of llm_text, clip_text"),
        ({"relevance": "clip_text"}, "need one another"),
        ({"text_tower": "clip"}, "need one another"),
        *(({"prune_layer": layer}, "an integer, 0 or more") for layer in (-1, True, 2.0, float("nan"), "2", None)),
        ({"prune_layer": 2, "positions": "compact"}, "positions are 'original'"),
        ({"pruner": resolve_pruner("fastv", 4)}, "fastv needs prune_layer of 1 or more"),
        ({"pruner": resolve_pruner("visionzip", 4), "prune_layer": 1}, "visionzip merges tokens"),
    ],
)
def test_what_holds_without_a_model_is_checked_without_one(options, message):
    with pytest.raises(ValueError, match=message):
        PruningOptions(**options)


@pytest.mark.parametrize("name", PRUNERS)
def test_every_pruner_has_a_layer_that_it_can_choose_at(name):
    pruner = resolve_pruner(name, 4)
    assert PruningOptions(pruner, prune_layer=np.int64(1) if name == "fastv" else 0).pruner is pruner


@pytest.mark.parametrize("value", [["tile"], {"tile"}, 1, np.array(["tile", "image"])])
def test_a_choice_of_another_type_is_none_of_the_valid_ones(value):
    with pytest.raises(ValueError, match="is not one of tile, image"):
        check_choice("budget_scope", value, (None, "tile", "image"))


FULL = {"pruner": "vispruner", "visual_token_num": 64, "important_ratio": 0.75, "prune_layer": 2}
CLIP = {
    "pruner": "trim",
    "keep_ratio": 0.1,
    "relevance": "clip_text",
    "text_tower": "a/clip",
    "text_chunking": "bos_eos",
}
SAID = [
    (NATIVE, {}),
    (NATIVE, {"visual_token_num": 64}),
    (NATIVE, {"pruner": "vispruner", "visual_token_num": 64, "important_ratio": 0.5, "prune_layer": 0}),
    (NATIVE, FULL),
    (NATIVE, {"pruner": "random", "keep_ratio": 1e-3, "seed": 3, "positions": "compact"}),
    (NATIVE, {"pruner": "divprune", "visual_token_num": 9, "budget_scope": "tile"}),
    (NATIVE, {"pruner": "divprune", "visual_token_num": 9, "centered": True}),
    (HOSTED, {"pruner": "cdpruner", "keep_ratio": 0.5, "theta": 0.5, "centered": "standardised"}),
    (HOSTED, {"pruner": "cls_topk", "visual_token_num": 9, "attention": "received"}),
    (NATIVE, {"pruner": "divprune", "visual_token_num": 64, "budget": "spectral", "erank_ref": 71.25}),
    (HOSTED, {"pruner": "divprune", "visual_token_num": 64, "budget": "mass", "mass": 0.75}),
    (NATIVE, {"pruner": "cdpruner", "visual_token_num": 9, "budget_split": "importance"}),
    (HOSTED, CLIP),
]


@pytest.mark.parametrize(("host", "keywords"), SAID)
def test_keywords_flags_and_records_say_the_same(host, keywords):
    options = PruningOptions.of(host, **keywords)
    assert PruningOptions.read(json.loads(json.dumps(options.describe())), host) == options
    parser = ArgumentParser()
    add_pruning_args(parser, host)
    flags = ([f"--{name}", *([] if value is True else [str(value)])] for name, value in keywords.items())
    words = [word for flag in flags for word in flag]
    assert PruningOptions.from_args(parser.parse_args(words), host) == options


def test_what_does_not_differ_is_not_recorded_and_attention_of_llavas_own_is_no_cue():
    options = PruningOptions.of(NATIVE, pruner="divprune", visual_token_num=9, prune_layer=1)
    described = options.describe()
    assert described == {"pruner": "divprune", "options": {"visual_token_num": 9}, "run": {"prune_layer": 1}}
    run = {"attention": "sdpa", "positions": None, "conv_mode": "vicuna_v1", "prune_layer": 1}
    assert PruningOptions.read({**described, "run": run}, NATIVE) == options


def test_an_option_that_is_off_is_not_recorded_and_one_that_is_on_is():
    off = PruningOptions.of(NATIVE, pruner="divprune", visual_token_num=9, centered=False)
    assert off == PruningOptions.of(NATIVE, pruner="divprune", visual_token_num=9)
    assert off.describe()["options"] == {"visual_token_num": 9}
    on = PruningOptions.of(NATIVE, pruner="divprune", visual_token_num=9, centered=True)
    assert on.describe()["options"] == {"visual_token_num": 9, "centered": True}


def test_what_a_host_does_not_read_is_no_keyword_and_no_flag_of_it():
    with pytest.raises(TypeError, match="cls_topk has no option attention"):
        PruningOptions.of(NATIVE, pruner="cls_topk", visual_token_num=9, attention="received")
    parser = ArgumentParser(exit_on_error=False)
    add_pruning_args(parser, NATIVE)
    assert parser.parse_known_args(["--attention", "received"])[1] == ["--attention", "received"]


@pytest.mark.parametrize(
    ("options", "default", "compact"),
    [
        ({}, "compact", True),
        ({}, "original", False),
        ({"prune_layer": 1}, "compact", False),
        ({"positions": "original"}, "compact", False),
        ({"positions": "compact"}, "original", True),
    ],
)
def test_positions_are_the_models_own_unless_told_otherwise(options, default, compact):
    assert PruningOptions(**options).compact(default) is compact


def test_a_name_is_no_pruner():
    with pytest.raises(TypeError, match="resolve_pruner builds one by name"):
        PruningOptions("cdpruner")


def test_what_merges_tokens_cannot_do_so_inside():
    class Merging(PRUNERS["uniform"]):
        def merge(self, cues, keep):
            raise NotImplementedError

    assert PruningOptions(Merging(4)).prune_layer == 0
    with pytest.raises(ValueError, match="Merging merges tokens .* prune_layer 0"):
        PruningOptions(Merging(4), prune_layer=1)


@pytest.mark.parametrize("wrong", ["divprune", {"pruner": "divprune"}, resolve_pruner("divprune", 3)])
def test_a_call_brings_options_or_none(wrong):
    with pytest.raises(TypeError, match="pruning must be PruningOptions or None, not (str|dict|DivPrune)"):
        PruningOptions().brought(wrong)


TOKENS = resolve_pruner("divprune", 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": "rank"}, "budget 'rank' is not one of fixed, spectral, mass"),
        ({"budget_split": "odd"}, "budget_split 'odd' is not one of even, importance"),
        ({"budget": "mass", "mass": 0}, r"mass must be a number in \(0, 1\], not 0"),
        ({"budget": "mass", "mass": True}, r"mass must be a number in \(0, 1\], not True"),
        ({"budget": "spectral", "erank_ref": float("inf")}, "erank_ref must be a number above 0, not inf"),
        ({"budget": "spectral", "erank_ref": "9"}, "erank_ref must be a number above 0, not '9'"),
        ({"erank_ref": 9.0}, "erank_ref is for budget 'spectral', not 'fixed'"),
        ({"budget": "spectral", "mass": 0.5}, "mass is for budget 'mass', not 'spectral'"),
        ({"budget": "mass", "pruner": resolve_pruner("divprune", 15)}, "visual_token_num of 16 or more, not .* 15"),
        ({"budget": "mass", "pruner": resolve_pruner("divprune", keep_ratio=0.5)}, "not keep_ratio 0.5"),
        ({"budget": "spectral", "pruner": TOKENS, "prune_layer": 2}, "it needs prune_layer 0"),
        ({"budget_split": "importance", "pruner": TOKENS, "budget_scope": "image"}, "needs budget_scope 'tile'"),
    ],
)
def test_budgets_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PruningOptions(**options)


def test_a_budget_asks_for_the_cues_that_it_is_measured_from():
    assert PruningOptions(TOKENS).needs == TOKENS.needs and not PruningOptions(TOKENS).varies
    spectral = PruningOptions(resolve_pruner("random", 64), budget="spectral", erank_ref=3)
    assert spectral.needs == {"embeds"} and spectral.varies
    mass = PruningOptions(resolve_pruner("cdpruner", 64), budget="mass", budget_split="importance", prune_layer=3)
    assert mass.needs >= {"embeds", "cls_attention", "relevance", "joint_embeds", "text_sequence"} and mass.varies
    assert not PruningOptions(budget="mass").varies and not PruningOptions(budget="mass").needs


def test_a_spectral_budget_takes_the_reference_of_the_nearest_number_of_tokens():
    spectral = PruningOptions(TOKENS, budget="spectral")
    assert spectral.completed({32: 5.0, 96: 7.0}).erank_ref == 7.0
    assert spectral.completed({16: 5.0, 64: 6.0, 63: 7.0}).erank_ref == 6.0
    own = PruningOptions(TOKENS, budget="spectral", erank_ref=2.0)
    assert own.completed({64: 6.0}) is own and PruningOptions(TOKENS).completed({}) == PruningOptions(TOKENS)
    with pytest.raises(ValueError, match="erank_ref is missing .* llava.eval calibrate"):
        spectral.completed({})
