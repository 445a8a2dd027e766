import json
from dataclasses import asdict

import pytest

from llava.eval.results.collect import Group, collect
from llava.eval.results.formats import notes
from llava.eval.results.profile import share_of_batch
from llava.eval.results.setting import Setting
from llava.eval.results.table import build_tables
from llava.records import InputError


def test_an_option_of_a_new_pruner_stays_in_the_table_of_its_checkpoint(measure, tmp_path):
    folder = "pope/answers/llava_pope_test/llava-v1.5-7b/newcomer"
    for power in ("1.0", "2"):
        measure(f"{folder}/vtn_64_power{power}", options={"visual_token_num": 64, "power": float(power)})
    found = collect(tmp_path)
    assert {each.group for each in found} == {Group("llava-v1.5-7b", "native", "")}
    assert [each.setting.label for each in found] == ["vtn_64_power1", "vtn_64_power2"]


def test_what_was_lost_of_the_questions_is_counted_from_the_answers(measure, put, tmp_path):
    measure()
    said = {"pruner": "cdpruner", "options": {"visual_token_num": 64}, "visual_tokens": 64}
    answers = [{"metadata": said | {"cut": 7}}, {"metadata": said}, {"text": "old"}]
    put("pope/answers/llava_pope_test/llava-v1.5-7b/cdpruner/vtn_64.jsonl", answers)
    (found,) = collect(tmp_path)
    assert found.lost == {"cut": 1}
    (table,) = build_tables([found])
    assert any("cdpruner, vtn_64, POPE: questions 1 whose prompt lost its end" in note for note in notes(table))


RESULT = {"benchmark": "pope", "metric": "mean F1", "value": 87.5, "count": 2, "ci95": [86.0, 89.0], "missing": 1}


@pytest.fixture
def measure(put):
    """Write a result and, beside it, answers that read some numbers of visual tokens."""

    usual = "pope/answers/llava_pope_test/llava-v1.5-7b/cdpruner/vtn_64"

    def write(path=usual, tokens=(64, 66), run=None, options=None, **result):
        options = {"visual_token_num": 64} if options is None else options
        said = {"pruner": path.split("/")[-2], "options": options, "run": run or {}}
        answers = [{"text": "Yes", "metadata": {"visual_tokens": n, **said}} for n in tokens]
        if tokens:
            put(f"{path}.jsonl", answers)
        return put(f"{path}.json", RESULT | result)

    return write


def test_a_result_is_read_with_what_its_path_and_its_answers_say(measure, tmp_path):
    path = measure()
    (found,) = collect(tmp_path)
    assert found.group == Group("llava-v1.5-7b", "native", "")
    assert (found.setting, found.column) == (Setting("cdpruner", "vtn_64", "native", "", 0), "pope")
    assert (found.value, found.count, found.ci95, found.unanswered) == (87.5, 2, (86.0, 89.0), 1)
    assert found.visual_tokens == 65.0 and str(found.path) == path


def test_a_result_states_its_setting_and_without_it_the_answers_beside_do(measure, tmp_path, caplog):
    folder = "pope/answers/llava_pope_test/llava-v1.5-7b"
    stated = Setting("divprune", "vtn_9", "fixed", "dtypebfloat16", 0)
    measure(f"{folder}/divprune/one", setting=asdict(stated))
    measure(f"{folder}/cdpruner/two")
    measure(f"{folder}/vispruner/three", tokens=())
    found = {each.path.stem: each.setting for each in collect(tmp_path)}
    assert found == {"one": stated, "two": Setting("cdpruner", "vtn_64", "native", "", 0)}
    assert "say what it was measured with" in caplog.text and "three.json" in caplog.text


def test_a_file_may_have_any_name(measure, tmp_path):
    measure("pope/answers/llava_pope_test/llava-v1.5-7b/cdpruner/vtn_32_dtypebfloat16")
    (found,) = collect(tmp_path)
    assert (found.setting.label, found.group.variant) == ("vtn_64", "")


def test_the_profile_of_the_answers_is_read_with_them(measure, put, tmp_path):
    measure()
    assert collect(tmp_path)[0].profile is None
    share = share_of_batch({"vision": 9.0, "projector": 1.0, "selection": 1.0, "prefill": 4.0, "decode": 2.0}, 2, 1)
    answers = [
        {"metadata": {"pruner": "none", "latency_ms": 20.0}},
        {"metadata": {"latency_ms": 10.0, "profile": share}},
    ]
    put("pope/answers/llava_pope_test/llava-v1.5-7b/cdpruner/vtn_64.jsonl", answers)
    profile = collect(tmp_path)[0].profile
    assert (profile.count, profile.latency_ms, profile.stages["vision_ms"]) == (1, 10.0, 9.0)


def test_without_answers_the_number_of_tokens_is_unknown(measure, tmp_path):
    measure(tokens=(), setting=asdict(Setting("cdpruner", "vtn_64", "native", "", 0)))
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
