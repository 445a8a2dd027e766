import json

import pytest

from llava.eval.results.collect import collect
from llava.eval.results.latency import save_latency
from llava.eval.results.metadata import STAGES, read_metadata
from llava.records import InputError

GOOD = {
    **{"visual_tokens": 36, "latency_ms": 1.5, "pruner": "divprune", "options": {"visual_token_num": 36}},
    "run": {"anyres": "native", "conv_mode": "vicuna_v1", "temperature": 0, "prune_layer": 2},
    "profile": dict.fromkeys(STAGES, 1.0) | {STAGES[-1]: None},
}


def write(path, *metadata):
    path.write_text("".join(json.dumps({"question_id": 1, "metadata": each}) + "\n" for each in metadata))


def test_what_programs_write_is_read_and_no_metadata_are_none(tmp_path):
    write(tmp_path / "a.jsonl", GOOD, None, {"error": "no image"} | GOOD)
    assert read_metadata(tmp_path / "a.jsonl") == [GOOD, {}, {"error": "no image"} | GOOD]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (3, "metadata"),
        (["x"], "metadata"),
        (GOOD | {"visual_tokens": "36"}, "visual_tokens"),
        (GOOD | {"options": ["theta"]}, "options"),
        (GOOD | {"run": None}, "run"),
        (GOOD | {"run": {"anyres": 3}}, "anyres"),
        (GOOD | {"run": {"model_path": None}}, "model_path"),
        (GOOD | {"run": {"attention_implementation": {}}}, "attention_implementation"),
        (GOOD | {"options": {"seed": "1"}}, "seed"),
        (GOOD | {"profile": {}}, "vision_ms"),
        (GOOD | {"profile": GOOD["profile"] | {"decode_ms": "1"}}, "decode_ms"),
        ({"profile": GOOD["profile"]}, "latency_ms"),
    ],
)
def test_metadata_of_another_form_are_told_with_file_and_answer_wherever_they_are_read(tmp_path, wrong, named):
    path = tmp_path / "pope/answers/llava_pope_test/x/divprune/vtn_36.jsonl"
    path.parent.mkdir(parents=True)
    write(path, GOOD, wrong)
    path.with_suffix(".json").write_text(json.dumps({"benchmark": "pope", "metric": "F1", "value": 1, "count": 2}))
    for use in (read_metadata, save_latency, lambda path: collect(tmp_path)):
        with pytest.raises(
            InputError, match=rf"vtn_36\.jsonl, answer 2, metadata.*{named}|answer 2, metadata: expected"
        ):
            use(path)
