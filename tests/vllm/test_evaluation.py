"""``--engine vllm``: the same files as without it, and the same answers."""

import json
import shutil
import subprocess
import sys

import pytest

from llava.eval import model_vqa_loader
from llava.eval.ask.plan import plan_of
from llava.records import InputError
from llava.shapes import checkpoint_path
from llava.shapes.benchmark import write_benchmark

ASK = [sys.executable, "-m", "llava.eval.model_vqa_loader", "--temperature", "0", "--conv-mode", "vicuna_v1"]
PRUNED = ["--pruner", "cdpruner", "--visual_token_num", "18"]


def refused(*words: str) -> str:
    args = model_vqa_loader.build_parser().parse_args(["--engine", "vllm", *words])
    with pytest.raises(InputError) as error:
        model_vqa_loader.eval_model(args)
    return str(error.value)


def test_a_checkpoint_of_llavas_is_refused_with_the_conversion():
    told = refused("--model-path", str(checkpoint_path()))
    assert f"convert_llava_to_hf.py --model-path {checkpoint_path()} --output-path {checkpoint_path()}-hf" in told
    assert "is in LLaVA's format" in refused(), "the embedded model"


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (["--prune_layer", "1"], "--prune_layer"),
        (["--budget", "mass"], "--budget"),
        (["--positions", "original"], "--positions"),
        (["--static-cache"], "--static-cache is"),
        (["--profile"], "--profile"),
        (["--num_beams", "2"], "--num_beams"),
        (["--attn", "eager"], "--attn is"),
        (["--model-base", "somewhere"], "--model-base is"),
        (["--cuda-graphs"], "--cuda-graphs"),
        (["--anyres", "fixed"], "--anyres fixed"),
    ],
)
def test_options_of_llavas_own_classes_are_refused(words, flag):
    assert flag in refused("--model-path", str(checkpoint_path()), *words)


@pytest.mark.parametrize("words", [["--allow-crop"], ["--tensor-parallel-size", "2"]])
def test_its_options_need_it(words):
    args = model_vqa_loader.build_parser().parse_args(words)
    with pytest.raises(InputError, match=f"{words[0]} is for --engine vllm"):
        model_vqa_loader.eval_model(args)


@pytest.mark.parametrize("pads", [True, False])
def test_a_processor_that_crops_is_refused_unless_that_is_allowed(converted, tmp_path, pads, monkeypatch):
    folder = shutil.copytree(converted(checkpoint_path()), tmp_path / "hf")
    file = folder / "processor_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    settings["image_processor"]["do_pad"] = pads
    file.write_text(json.dumps(settings), encoding="utf-8")
    monkeypatch.setattr("llava.eval.ask.engine.find_spec", lambda name: None)
    assert ("crops pictures" in refused("--model-path", str(folder))) is not pads
    assert "vLLM is not installed" in refused("--model-path", str(folder), "--allow-crop")


@pytest.mark.parametrize(
    ("words", "visible", "devices"),
    [
        ([], "", ("0",)),
        ([], "2,3", ("2", "3")),
        (["--data-parallel-size", "3"], "", ("0", "1", "2")),
        (["--data-parallel-size", "1"], "2,3", ("2",)),
        (["--tensor-parallel-size", "2"], "", ("0,1",)),
        (["--tensor-parallel-size", "2"], "0,1,2,3", ("0,1", "2,3")),
        (["--data-parallel-size", "2", "--tensor-parallel-size", "2"], "", ("0,1", "2,3")),
    ],
)
def test_every_engine_of_a_script_has_its_devices(words, visible, devices):
    plan = plan_of(["gqa", "v1_6", "64", "--engine", "vllm", *words], {"CUDA_VISIBLE_DEVICES": visible})
    assert plan.places.devices == devices and len(plan.asking) == len(devices)
    assert plan.answers.endswith("_enginevllm.jsonl") and "--anyres native" in " ".join(plan.options)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--engine", "vllm", "--data-parallel-size", "3"], "3 times 1 devices are asked for, CUDA_VISIBLE_DEVICES na"),
        (["--data-parallel-size", "2"], "--data-parallel-size is for --engine vllm"),
    ],
)
def test_devices_that_are_not_there_end_a_script(words, told, capsys):
    with pytest.raises(SystemExit):
        plan_of(["gqa", "v1_5", "64", *words], {"CUDA_VISIBLE_DEVICES": "0,1"})
    assert told in capsys.readouterr().err


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    folder = tmp_path_factory.mktemp("asked")
    write_benchmark(folder, "test", 120, seed=5)
    return folder


def ask(folder, answers: str, *words: str) -> list[dict]:
    places = ["--question-file", folder / "shapes_test.jsonl", "--image-folder", folder / "images"]
    command = [*ASK, *places, "--answers-file", folder / answers, *words]
    subprocess.run([str(word) for word in command], check=True)
    return read(folder / answers)


def read(file) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.mark.vllm
@pytest.mark.parametrize("pruner", [PRUNED, []], ids=["cdpruner", "none"])
def test_the_answers_are_those_of_llavas_own_classes(benchmark, shapes_hf, pruner):
    pytest.importorskip("vllm")
    own = ask(benchmark, f"own{len(pruner)}.jsonl", *pruner)
    served = ask(benchmark, f"vllm{len(pruner)}.jsonl", "--engine", "vllm", "--model-path", shapes_hf, *pruner)
    for one, other in zip(own, served, strict=True):
        assert [one[key] for key in ("question_id", "prompt", "text")] == [
            other[key] for key in ("question_id", "prompt", "text")
        ]
        metadata, run = other["metadata"], other["metadata"]["run"]
        names = ("visual_tokens", "tokens_before", "tiles", "pruner", "options")
        assert {name: one["metadata"][name] for name in names} == {name: metadata[name] for name in names}
        assert run["engine"] == "vllm" and run["dtype"] == "float32" and "vllm" in run["versions"]


@pytest.mark.vllm
@pytest.mark.slow
def test_a_vllm_that_leaves_the_plugin_out_answers_nothing(benchmark, shapes_hf, monkeypatch):
    pytest.importorskip("vllm")
    monkeypatch.setenv("VLLM_PLUGINS", "another")
    with pytest.raises(subprocess.CalledProcessError):
        ask(benchmark, "left_out.jsonl", "--engine", "vllm", "--model-path", shapes_hf, *PRUNED)
    assert not (benchmark / "left_out.jsonl").exists()


@pytest.mark.vllm
@pytest.mark.slow
def test_what_was_cut_short_is_completed_and_scored(benchmark, shapes_hf):
    pytest.importorskip("vllm")
    words = ["--engine", "vllm", "--model-path", shapes_hf, *PRUNED]
    whole = ask(benchmark, "cut.jsonl", *words)
    file = benchmark / "cut.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(lines[:50]) + lines[50][:20], encoding="utf-8")
    completed = ask(benchmark, "cut.jsonl", *words)
    assert [line["text"] for line in completed] == [line["text"] for line in whole]
    assert [line["answer_id"] for line in completed[:50]] == [line["answer_id"] for line in whole[:50]]
    score = [sys.executable, "-m", "llava.eval", "score", "shapes", "--result-file", file]
    score += ["--annotation-file", benchmark / "shapes_test_labels.jsonl", "--output", benchmark / "score.json"]
    subprocess.run([str(word) for word in score], check=True)
    said = json.loads((benchmark / "score.json").read_text(encoding="utf-8"))["setting"]
    assert (said["pruner"], said["label"], said["variant"]) == ("cdpruner", "vtn_18", "enginevllm")
