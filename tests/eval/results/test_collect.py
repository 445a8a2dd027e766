import json
import re
from argparse import ArgumentParser
from pathlib import Path

import pytest

from llava.eval.results.collect import Group, Setting, collect, parse_setting
from llava.eval.results.formats import notes
from llava.eval.results.profile import share_of_batch
from llava.eval.results.table import build_tables
from llava.pruners import add_pruner_args
from llava.records import InputError


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("vtn_64", Setting("vtn_64", None, "", 0)),
        ("ratio_0.25", Setting("ratio_0.25", None, "", 0)),
        ("full", Setting("full", None, "", 0)),
        ("vtn_64_r0.75", Setting("vtn_64_r0.75", None, "", 0)),
        ("vtn_0_theta0.5_native", Setting("vtn_0_theta0.5", "native", "", 0)),
        ("vtn_64_seed12", Setting("vtn_64", None, "", 12)),
        ("full_fixed_dtypebfloat16", Setting("full", "fixed", "dtypebfloat16", 0)),
        ("vtn_8_dtypefloat32_r0.25_llava_v1", Setting("vtn_8_r0.25", None, "dtypefloat32_llava_v1", 0)),
        (
            "vtn_8_text_chunkingbos_eos_budget_scopeimage_prune_layer2",
            Setting("vtn_8_budget_scopeimage_prune_layer2_text_chunkingbos_eos", None, "", 0),
        ),
        ("vtn_036", Setting("vtn_36", None, "", 0)),
        ("ratio_.50", Setting("ratio_0.5", None, "", 0)),
        ("vtn_64_contextual_ratio1e-3", Setting("vtn_64_contextual_ratio0.001", None, "", 0)),
        ("vtn_64_r.75_seed00", Setting("vtn_64_r0.75", None, "", 0)),
        ("vtn_64_positionscompact_prune_layer0_temperature0.0_r0.50", Setting("vtn_64", None, "", 0)),
        ("vtn_64_llava_v1_dtypefloat32", Setting("vtn_64", None, "dtypefloat32_llava_v1", 0)),
        (
            "vtn_64_max_new_tokens9_vision_dtypefloat32_theta.5",
            Setting("vtn_64_theta0.5", None, "max_new_tokens9_vision_dtypefloat32", 0),
        ),
        ("full_something_else", Setting("full", None, "something_else", 0)),
        ("vtn_64_cuesqwen_release", Setting("vtn_64_cuesqwen_release", None, "", 0)),
        ("full_vision_dtypefloat32", Setting("full", None, "vision_dtypefloat32", 0)),
    ],
)
def test_the_name_of_a_result_says_budget_options_layout_variant_and_seed(name, setting):
    assert parse_setting(name) == setting


def test_the_options_of_every_pruner_stay_with_its_row():
    parser = ArgumentParser()
    add_pruner_args(parser)
    options = set(vars(parser.parse_args([]))) - {"pruner", "visual_token_num", "keep_ratio", "seed"}
    for option in options:
        label = "r" if option == "important_ratio" else option
        assert parse_setting(f"vtn_64_{label}0.25") == Setting(f"vtn_64_{label}0.25", None, "", 0), option


def test_an_option_of_a_new_pruner_stays_in_the_table_of_its_checkpoint(measure, tmp_path):
    folder = "pope/answers/llava_pope_test/llava-v1.5-7b/newcomer"
    for power in ("1.0", "2"):
        measure(f"{folder}/vtn_64_power{power}", options={"visual_token_num": 64, "power": float(power)})
    found = collect(tmp_path)
    assert {each.group for each in found} == {Group("llava-v1.5-7b", "native", "")}
    assert [each.setting.label for each in found] == ["vtn_64_power1", "vtn_64_power2"]


def test_what_was_lost_of_the_questions_is_counted_from_the_answers(measure, put, tmp_path):
    measure()
    answers = [{"metadata": {"visual_tokens": 64, "cut": 7}}, {"metadata": {"visual_tokens": 64}}, {"text": "old"}]
    put("pope/answers/llava_pope_test/llava-v1.5-7b/cdpruner/vtn_64.jsonl", answers)
    (found,) = collect(tmp_path)
    assert found.lost == {"cut": 1}
    (table,) = build_tables([found])
    assert any("cdpruner, vtn_64, POPE: questions 1 whose prompt lost its end" in note for note in notes(table))


def test_the_scripts_and_the_tables_agree_on_what_is_usual():
    text = (Path(__file__).parents[3] / "scripts" / "eval" / "driver.sh").read_text()
    words = " ".join(re.findall(r'^USUAL\+?="([^"$]*)', text, re.MULTILINE)).split()
    assert len(words) > 8 and parse_setting("_".join(["vtn_64", *words])) == Setting("vtn_64", None, "", 0)


@pytest.mark.parametrize("name", ["vtn64", "result", "full2", "64"])
def test_other_names_are_not_those_of_results(name):
    assert parse_setting(name) is None


RESULT = {"benchmark": "pope", "metric": "mean F1", "value": 87.5, "count": 2, "ci95": [86.0, 89.0], "missing": 1}


@pytest.fixture
def measure(put):
    """Write a result and, beside it, answers that read some numbers of visual tokens."""

    usual = "pope/answers/llava_pope_test/llava-v1.5-7b/cdpruner/vtn_64"

    def write(path=usual, tokens=(64, 66), run=None, options=None, **result):
        said = ({"run": run} if run else {}) | ({"options": options} if options else {})
        answers = [{"text": "Yes", "metadata": {"visual_tokens": n, **said}} for n in tokens]
        if tokens:
            put(f"{path}.jsonl", answers)
        return put(f"{path}.json", RESULT | result)

    return write


def test_a_result_is_read_with_what_its_path_and_its_answers_say(measure, tmp_path):
    path = measure()
    (found,) = collect(tmp_path)
    assert found.group == Group("llava-v1.5-7b", "native", "")
    assert (found.pruner, found.setting.label, found.column) == ("cdpruner", "vtn_64", "pope")
    assert (found.value, found.count, found.ci95, found.unanswered) == (87.5, 2, (86.0, 89.0), 1)
    assert found.visual_tokens == 65.0 and str(found.path) == path


def test_the_layout_is_the_checkpoints_usual_one_or_the_names_or_what_the_answers_say(measure, tmp_path):
    folder = "pope/answers/llava_pope_test"
    measure(f"{folder}/llava-v1.6-vicuna-7b/none/full", tokens=())
    measure(f"{folder}/llava-v1.6-vicuna-13b/none/full_native", tokens=())
    measure(f"{folder}/my-llava/none/full", run={"anyres": "fixed"})
    layouts = {each.group.checkpoint: each.group.layout for each in collect(tmp_path)}
    assert layouts == {"llava-v1.6-vicuna-7b": "fixed", "llava-v1.6-vicuna-13b": "native", "my-llava": "fixed"}


def test_the_profile_of_the_answers_is_read_with_them(measure, put, tmp_path):
    measure()
    assert collect(tmp_path)[0].profile is None
    share = share_of_batch({"vision": 9.0, "projector": 1.0, "selection": 1.0, "prefill": 4.0, "decode": 2.0}, 2, 1)
    answers = [{"metadata": {"latency_ms": 20.0}}, {"metadata": {"latency_ms": 10.0, "profile": share}}]
    put("pope/answers/llava_pope_test/llava-v1.5-7b/cdpruner/vtn_64.jsonl", answers)
    profile = collect(tmp_path)[0].profile
    assert (profile.count, profile.latency_ms, profile.stages["vision_ms"]) == (1, 10.0, 9.0)


def test_without_answers_the_number_of_tokens_is_unknown(measure, tmp_path):
    measure(tokens=())
    assert collect(tmp_path)[0].visual_tokens is None


def test_another_split_is_another_column(measure, tmp_path):
    measure("mmbench/answers/mmbench_dev_20230712/x/none/full", benchmark="mmbench")
    measure("mmbench/answers/mmbench_test_20230712/x/none/full", benchmark="mmbench")
    assert [each.column for each in collect(tmp_path)] == ["mmbench", "mmbench (mmbench_test_20230712)"]


def test_files_beside_the_results_that_are_none_are_left_out(measure, put, tmp_path):
    measure()
    put("pope/answers/llava_pope_test/llava-v1.5-7b/cdpruner/vtn_64_latency.json", {"statistics": {}})
    put("pope/answers/llava_pope_test/llava-v1.5-7b/cdpruner/notes.json", {"benchmark": "pope"})
    assert len(collect(tmp_path)) == 1


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("{", r"vtn_64\.json: not valid JSON"),
        (json.dumps({"benchmark": "pope", "metric": "F1"}), "the key 'value' is missing"),
        (json.dumps({"benchmark": "pope", "metric": "F1", "value": float("nan"), "count": 1}), "NaN is no number"),
        *((json.dumps(RESULT | {key: value}), key) for key, value in (("missing", None), ("ci95", 3), ("ci95", [1.0]))),
    ],
)
def test_a_broken_result_is_an_error_that_names_it(measure, tmp_path, content, fault):
    path = measure()
    with open(path, "w") as file:
        file.write(content)
    with pytest.raises(InputError, match=fault) as error:
        collect(tmp_path)
    assert path in str(error.value)


def test_a_folder_without_results_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no results in it"):
        collect(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        collect(tmp_path / "nowhere")
