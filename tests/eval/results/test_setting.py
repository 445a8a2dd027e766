from dataclasses import asdict, fields

import pytest

from llava.eval.results.setting import Setting
from llava.pruners import PRUNERS
from llava.records import InputError

RUN = {"dtype": "float16", "anyres": "native", "conv_mode": "vicuna_v1", "temperature": 0.0, "num_beams": 1}


def setting_of(pruner="cdpruner", checkpoint="llava-v1.5-7b", benchmark="gqa", run=None, **options):
    metadata = {"pruner": pruner, "options": options, "run": RUN | (run or {})}
    return Setting.of(metadata, checkpoint, benchmark)


@pytest.mark.parametrize(
    ("pruner", "options", "label"),
    [
        ("cdpruner", {"visual_token_num": 64}, "vtn_64"),
        ("cdpruner", {"keep_ratio": 0.25}, "ratio_0.25"),
        ("none", {}, "full"),
        ("divprune", {"visual_token_num": 64, "centered": False}, "vtn_64"),
        ("divprune", {"visual_token_num": 64, "centered": True}, "vtn_64_centered"),
        ("cdpruner", {"visual_token_num": 64, "centered": "plain"}, "vtn_64_centeredplain"),
        ("uniform", {"visual_token_num": 0}, "vtn_0"),
        ("cdpruner", {"visual_token_num": 64, "theta": 0.50}, "vtn_64_theta0.5"),
        ("cdpruner", {"visual_token_num": 64, "theta": 0.25}, "vtn_64_theta0.25"),
        ("vispruner", {"visual_token_num": 64, "important_ratio": 0.5}, "vtn_64"),
        ("vispruner", {"visual_token_num": 64, "important_ratio": 0.75}, "vtn_64_r0.75"),
        ("visionzip", {"visual_token_num": 64, "contextual_ratio": 0.001}, "vtn_64_contextual_ratio0.001"),
        ("mfpruner", {"visual_token_num": 8, "cues": "qwen_release"}, "vtn_8_cuesqwen_release"),
    ],
)
def test_the_label_is_the_budget_and_what_differs_from_the_pruners_defaults(pruner, options, label):
    assert setting_of(pruner, **options) == Setting(pruner, label, "native", "", 0)


@pytest.mark.parametrize("run", [{"prune_layer": 2}, {"budget": "mass", "mass": 0.5}, {"budget_scope": "tile"}])
def test_without_a_pruner_how_a_choice_is_applied_makes_no_other_row(run):
    assert setting_of("none", run=run) == setting_of("none")


@pytest.mark.parametrize("pruner", PRUNERS)
def test_no_option_of_a_pruner_is_told_at_its_default_and_each_is_told_otherwise(pruner):
    own = {option.name: option.default for option in fields(PRUNERS[pruner])}
    own = {name: default for name, default in own.items() if name not in ("visual_token_num", "keep_ratio", "seed")}
    assert setting_of(pruner, visual_token_num=9, **own).label == "vtn_9"
    for name in own:
        label = setting_of(pruner, visual_token_num=9, **own | {name: "other"}).label
        assert label == f"vtn_9_{'r' if name == 'important_ratio' else name}other"


def test_an_option_of_a_pruner_that_is_not_known_belongs_to_its_row():
    assert setting_of("newcomer", visual_token_num=64, power=1.0) == Setting(
        "newcomer", "vtn_64_power1", "native", "", 0
    )


def test_a_seed_is_no_part_of_the_label():
    assert setting_of("random", visual_token_num=64, seed=12) == Setting("random", "vtn_64", "native", "", 12)


@pytest.mark.parametrize(
    ("run", "label"),
    [
        ({"prune_layer": 2}, "vtn_64_prune_layer2"),
        ({"prune_layer": 0, "positions": "compact", "text_chunking": "release"}, "vtn_64"),
        ({"prune_layer": 2, "positions": "original"}, "vtn_64_prune_layer2"),
        ({"positions": "original"}, "vtn_64_positionsoriginal"),
        (
            {"text_chunking": "bos_eos", "budget_scope": "image", "prune_layer": 2},
            "vtn_64_budget_scopeimage_prune_layer2_text_chunkingbos_eos",
        ),
    ],
)
def test_how_a_pruner_is_applied_belongs_to_its_row(run, label):
    found = setting_of(run=run, visual_token_num=64)
    assert (found.label, found.variant) == (label, "")


@pytest.mark.parametrize(
    ("run", "variant"),
    [
        ({"dtype": "bfloat16"}, "dtypebfloat16"),
        ({"dtype": "float32"}, ""),
        ({"dtype": "float32", "device": "cuda:0"}, "dtypefloat32"),
        ({"dtype": "float32", "device": "cpu"}, ""),
        ({"dtype": "float16", "device": "cpu"}, "dtypefloat16"),
        ({"vision_dtype": "float16"}, ""),
        ({"vision_dtype": "float32"}, "vision_dtypefloat32"),
        ({"conv_mode": "llava_v1", "dtype": "bfloat16"}, "llava_v1_dtypebfloat16"),
        ({"attention": "sdpa"}, ""),
        ({"attention": "eager"}, "attneager"),
        ({"temperature": 0.2, "top_p": 0.9, "num_beams": 3}, "num_beams3_temperature0.2_top_p0.9"),
        ({"max_new_tokens": 128}, ""),
        ({"max_new_tokens": 20}, "max_new_tokens20"),
        ({"model_base": "lmsys/vicuna"}, "model-baselmsys-vicuna"),
        ({"static_cache": True, "model_path": "a", "versions": {}, "commit": None, "files": {}}, ""),
        ({"something": "else"}, "somethingelse"),
    ],
)
def test_every_other_option_that_is_not_usual_tells_tables_apart(run, variant):
    found = setting_of(run=run, visual_token_num=64)
    assert (found.label, found.variant) == ("vtn_64", variant)


@pytest.mark.parametrize(
    ("checkpoint", "benchmark", "run"),
    [
        ("llava-v1.6-mistral-7b", "gqa", {"conv_mode": "mistral_instruct"}),
        ("llava-v1.6-34b", "qbench", {"conv_mode": "chatml_direct", "max_new_tokens": 1024}),
        ("llava-v1.5-7b", "qbench_zh", {"conv_mode": "llava_v1", "max_new_tokens": 1024}),
        ("llava-v1.5-7b", "mmvet", {"max_new_tokens": 1024}),
    ],
)
def test_what_is_usual_depends_on_checkpoint_and_benchmark(checkpoint, benchmark, run):
    assert setting_of(checkpoint=checkpoint, benchmark=benchmark, run=run).variant == ""
    assert setting_of(run=run).variant != ""


def test_the_layout_is_what_the_answers_say_or_the_checkpoints_usual_one():
    assert setting_of(run={"anyres": "fixed"}).layout == "fixed"
    bare = {"pruner": "none"}
    assert [Setting.of(bare, name, "gqa").layout for name in ("llava-v1.6-34b", "mine")] == ["fixed", "native"]


def test_a_cue_of_a_hosted_model_is_no_implementation_of_attention():
    run = {"attention_implementation": "sdpa", "attention": "received", "relevance": "llm_text"}
    found = setting_of(run=run, visual_token_num=64)
    assert (found.label, found.variant) == ("vtn_64_attentionreceived", "")


def test_what_a_result_states_is_read_as_it_was_written():
    setting = setting_of("random", visual_token_num=64, seed=3, run={"dtype": "bfloat16"})
    assert Setting.read(asdict(setting), "a.json") == setting
    with pytest.raises(InputError, match=r"a\.json, setting.*seed"):
        Setting.read(asdict(setting) | {"seed": "3"}, "a.json, setting")
