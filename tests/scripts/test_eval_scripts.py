"""Dry runs of the evaluation scripts: what they ask Python for, where answers go, and what stops them."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
BENCHMARKS = sorted(path.stem for path in (SCRIPTS / "v1_5" / "eval").glob("*.sh"))
LOADER = "model_vqa_loader"


def value_of(option, call):
    """The one value that a call has for an option."""
    options = call["options"]
    assert options.count(option) == 1, options
    return options[options.index(option) + 1]


def the_call(workplace, module=LOADER):
    (call,) = workplace.calls(module)
    return call


def eventually(condition, seconds=10):
    """Whether a condition comes true within some seconds."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def is_running(call):
    try:
        os.kill(call["pid"], 0)
    except ProcessLookupError:
        return False
    return True


def answers_path(workplace, command, **environment):
    """Where a run writes its answers, below the benchmark's folder of answers."""
    result = workplace.run(command, **environment)
    assert result.returncode == 0, result.stderr
    path = re.search("^answers: (.*)$", result.stdout, re.MULTILINE)[1]
    assert (workplace.folder / path).is_file()
    return path.partition("/answers/")[2]


class TestEveryScript:
    @pytest.mark.parametrize("benchmark", BENCHMARKS)
    def test_asks_its_questions_with_the_budget(self, workplace, benchmark):
        result = workplace.run(f"bash scripts/v1_5/eval/{benchmark}.sh 64")
        assert result.returncode == 0, result.stderr
        call = the_call(workplace)
        assert value_of("--visual_token_num", call) == "64"
        assert value_of("--pruner", call) == "cdpruner"
        assert value_of("--temperature", call) == "0"
        assert value_of("--conv-mode", call) == "vicuna_v1"
        assert value_of("--num-chunks", call) == "1"
        assert call["device"] is None

    @pytest.mark.parametrize("benchmark", BENCHMARKS)
    @pytest.mark.parametrize("arguments", ["", "divprune", "64 divprune", "-5", "--pruner divprune", "--help"])
    def test_explains_itself_when_called_wrongly(self, workplace, benchmark, arguments):
        result = workplace.run(f"bash scripts/v1_5/eval/{benchmark}.sh {arguments}")
        assert result.returncode == 2
        assert f"usage: bash scripts/v1_5/eval/{benchmark}.sh TOKENS" in result.stderr
        assert workplace.calls() == []

    @pytest.mark.parametrize("benchmark", BENCHMARKS)
    def test_is_two_lines_on_a_body_of_its_name(self, benchmark):
        first, second = (SCRIPTS / "v1_5" / "eval" / f"{benchmark}.sh").read_text().splitlines()
        assert first == "#!/usr/bin/env bash"
        assert second == f'exec bash "$(dirname "$0")/../../eval/{benchmark}.sh" v1_5 "$@"'


@pytest.mark.parametrize(
    ("benchmark", "questions", "images"),
    [
        ("gqa", "gqa/llava_gqa_testdev_balanced.jsonl", "gqa/data/images"),
        ("textvqa", "textvqa/llava_textvqa_val_v051_ocr.jsonl", "textvqa/train_images"),
        ("pope", "pope/llava_pope_test.jsonl", "pope/val2014"),
        ("mme", "MME/llava_mme.jsonl", "MME/MME_Benchmark_release_version"),
    ],
)
def test_questions_come_from_the_playground_and_images_from_the_data(workplace, benchmark, questions, images):
    environment = {"DATA_DIR": "/big disk/data", "CKPT_DIR": "/big disk/models", "CKPT": "llava-v1.5-13b"}
    assert workplace.run(f"bash scripts/v1_5/eval/{benchmark}.sh 64", **environment).returncode == 0
    call = the_call(workplace)
    assert value_of("--question-file", call) == f"./playground/data/eval/{questions}"
    assert value_of("--image-folder", call) == f"/big disk/data/{images}"
    assert value_of("--model-path", call) == "/big disk/models/llava-v1.5-13b"


class TestOptions:
    def test_reach_python_as_they_are(self, workplace):
        workplace.run("bash scripts/v1_5/eval/gqa.sh 64 --pruner divprune --seed=3 --image-folder 'my images'")
        options = the_call(workplace)["options"]
        assert "--seed=3" in options and "my images" in options
        assert value_of("--pruner", the_call(workplace)) == "divprune"

    def test_a_bare_number_is_visprunes_important_ratio(self, workplace):
        workplace.run("bash scripts/v1_5/eval/gqa.sh 64 0.75 --batch_size 4")
        call = the_call(workplace)
        assert value_of("--pruner", call) == "vispruner"
        assert value_of("--important_ratio", call) == "0.75"
        assert value_of("--visual_token_num", call) == "64"
        assert value_of("--batch_size", call) == "4"

    def test_a_named_pruner_wins_over_the_bare_number(self, workplace):
        workplace.run("bash scripts/v1_5/eval/gqa.sh 64 0.75 --pruner mfpruner")
        assert value_of("--pruner", the_call(workplace)) == "mfpruner"

    def test_the_caller_overrides_the_defaults(self, workplace):
        workplace.run("bash scripts/v1_5/eval/gqa.sh 64 --temperature 0.2 --conv-mode llava_v1 --anyres fixed")
        call = the_call(workplace)
        assert value_of("--temperature", call) == "0.2"
        assert value_of("--conv-mode", call) == "llava_v1"
        assert value_of("--anyres", call) == "fixed"

    def test_no_pruner_takes_no_budget(self, workplace):
        assert workplace.run("bash scripts/v1_5/eval/gqa.sh --pruner none").returncode == 0
        assert "--visual_token_num" not in the_call(workplace)["options"]
        result = workplace.run("bash scripts/v1_5/eval/gqa.sh 64 --pruner none")
        assert result.returncode == 2 and "leave TOKENS out" in result.stderr

    def test_the_template_follows_the_checkpoint(self, workplace):
        workplace.run("bash scripts/eval/gqa.sh v1_6 64", CKPT="llava-v1.6-mistral-7b")
        assert value_of("--conv-mode", the_call(workplace)) == "mistral_instruct"

    def test_the_papers_layout_is_the_default_of_v1_6(self, workplace):
        workplace.run("bash scripts/eval/gqa.sh v1_6 64")
        assert value_of("--anyres", the_call(workplace)) == "fixed"
        assert value_of("--model-path", the_call(workplace)) == "./checkpoints/llava-v1.6-vicuna-7b"

    def test_every_flag_is_one_that_the_loader_knows(self, workplace):
        workplace.run("bash scripts/v1_5/eval/gqa.sh 64 0.5 --batch_size 2 --theta 0.1 --seed 1 --on-error skip")
        workplace.run("bash scripts/v1_5/eval/gqa.sh --keep_ratio 0.25 --device cpu --dtype float32 --attn sdpa")
        help_text = subprocess.check_output([sys.executable, "-m", "llava.eval.model_vqa_loader", "--help"], text=True)
        used = {word for call in workplace.calls(LOADER) for word in call["options"] if word.startswith("--")}
        assert used <= set(re.findall(r"--[\w-]+", help_text))


class TestAnswersPath:
    @pytest.mark.parametrize(
        ("arguments", "path"),
        [
            ("64", "cdpruner/vtn_64"),
            ("64 --pruner divprune", "divprune/vtn_64"),
            ("64 --pruner=divprune", "divprune/vtn_64"),
            ("64 0.5", "vispruner/vtn_64"),
            ("64 0.75", "vispruner/vtn_64_r0.75"),
            ("64 --theta 0.3", "cdpruner/vtn_64_theta0.3"),
            ("64 --pruner random --seed 2", "random/vtn_64_seed2"),
            ("64 --batch_size 8 --num_workers 2 --device cpu --on-error skip", "cdpruner/vtn_64"),
            ("64 --dtype float32", "cdpruner/vtn_64_dtypefloat32"),
            ("64 --anyres fixed", "cdpruner/vtn_64_fixed"),
            ("--keep_ratio 0.25", "cdpruner/ratio_0.25"),
            ("--pruner none", "none/full"),
        ],
    )
    def test_tells_pruner_and_setting(self, workplace, arguments, path):
        found = answers_path(workplace, f"bash scripts/v1_5/eval/gqa.sh {arguments}")
        assert found == f"llava_gqa_testdev_balanced/llava-v1.5-7b/{path}.jsonl"

    def test_tells_the_layouts_of_one_checkpoint_apart(self, workplace):
        runs = {
            "v1_6 64": "vtn_64",
            "v1_6 64 --anyres native": "vtn_64_native",
            "v1_5 64": "vtn_64_native",
            "v1_5 64 --anyres fixed": "vtn_64",
        }
        for arguments, setting in runs.items():
            path = answers_path(workplace, f"bash scripts/eval/gqa.sh {arguments}", CKPT="llava-v1.6-vicuna-7b")
            assert path.endswith(f"/llava-v1.6-vicuna-7b/cdpruner/{setting}.jsonl")

    def test_an_option_with_a_slash_makes_no_folder(self, workplace):
        path = answers_path(workplace, "bash scripts/v1_5/eval/gqa.sh 64 --model-base models/vicuna")
        assert path.endswith("/vtn_64_model-basemodels-vicuna.jsonl")


class TestDevices:
    def test_each_gets_a_process_and_the_answers_are_merged_in_order(self, workplace):
        result = workplace.run("bash scripts/v1_5/eval/pope.sh 64", CUDA_VISIBLE_DEVICES="4,2,7")
        assert result.returncode == 0, result.stderr
        calls = sorted(workplace.calls(LOADER), key=lambda call: value_of("--chunk-idx", call))
        assert [call["device"] for call in calls] == ["4", "2", "7"]
        assert [value_of("--num-chunks", call) for call in calls] == ["3", "3", "3"]
        run = workplace.folder / "playground/data/eval/pope/answers/llava_pope_test/llava-v1.5-7b/cdpruner/vtn_64"
        assert run.with_suffix(".jsonl").read_text().split("\n")[:3] == [f"answers of rank {i}" for i in range(3)]
        assert sorted(path.name for path in run.iterdir()) == [
            "0.jsonl",
            "0.log",
            "1.jsonl",
            "1.log",
            "2.jsonl",
            "2.log",
        ]
        assert (run / "1.log").read_text() == "progress of rank 1\n"

    def test_the_first_process_shows_its_progress(self, workplace):
        result = workplace.run("bash scripts/v1_5/eval/pope.sh 64", CUDA_VISIBLE_DEVICES="0,1")
        assert "progress of rank 0" in result.stdout and "progress of rank 1" not in result.stdout

    @pytest.mark.parametrize("devices", ["", "3"])
    def test_one_or_none_is_left_to_the_caller(self, workplace, devices):
        assert workplace.run("bash scripts/v1_5/eval/pope.sh 64", CUDA_VISIBLE_DEVICES=devices).returncode == 0
        call = the_call(workplace)
        assert call["device"] == devices
        assert value_of("--num-chunks", call) == "1"

    def test_a_failed_process_stops_the_script_before_scoring_and_names_its_log(self, workplace):
        workplace.trouble = "1"
        result = workplace.run("bash scripts/v1_5/eval/shapes.sh 36", CUDA_VISIBLE_DEVICES="0,1,2")
        assert result.returncode == 1
        (log,) = re.findall("a process failed, its log: (.*)", result.stderr)
        assert log.endswith("/cdpruner/vtn_36/1.log") and (workplace.folder / log).is_file()
        assert not (workplace.folder / log).parent.with_suffix(".jsonl").exists()
        assert workplace.calls("eval_shapes") == []

    def test_a_failed_single_process_stops_the_script_too(self, workplace):
        workplace.trouble = "0"
        result = workplace.run("bash scripts/v1_5/eval/shapes.sh 36")
        assert result.returncode == 3 and "answers:" not in result.stdout
        assert workplace.calls("eval_shapes") == []

    @pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
    def test_interrupting_the_script_ends_every_process(self, workplace, name):
        workplace.trouble = "hang"
        script = workplace.start("bash scripts/v1_5/eval/pope.sh 64", CUDA_VISIBLE_DEVICES="0,1")
        assert eventually(lambda: len(workplace.calls()) == 2)
        script.send_signal(getattr(signal, name))
        assert script.wait(timeout=10) != 0
        assert eventually(lambda: not any(map(is_running, workplace.calls())))


class TestShapes:
    def test_draws_its_questions_once(self, workplace):
        for tokens in (36, 18):
            assert workplace.run(f"bash scripts/v1_5/eval/shapes.sh {tokens}").returncode == 0
        call = the_call(workplace, "shapes.benchmark")
        assert value_of("--output-dir", call) == "./playground/data/eval/shapes"
        assert value_of("--split", call) == "test"

    def test_uses_the_model_that_comes_with_the_repository(self, workplace):
        path = answers_path(workplace, "bash scripts/v1_5/eval/shapes.sh 36", CKPT_DIR="/models")
        assert path == "shapes_test/llava-shapes/cdpruner/vtn_36.jsonl"
        checkpoint = Path(value_of("--model-path", the_call(workplace)))
        embedded = SCRIPTS.parent / "llava" / "shapes" / "checkpoints" / "llava-shapes"
        assert (workplace.folder / checkpoint).resolve() == embedded

    def test_or_the_checkpoint_that_is_named(self, workplace):
        workplace.run("bash scripts/v1_5/eval/shapes.sh 36", CKPT_DIR="/models", CKPT="mine")
        assert value_of("--model-path", the_call(workplace)) == "/models/mine"

    def test_scores_the_answers_against_the_labels(self, workplace):
        workplace.run("bash scripts/v1_5/eval/shapes.sh 36", DATA_DIR="my data")
        score = the_call(workplace, "eval_shapes")
        assert value_of("--annotation-file", score) == "my data/shapes/shapes_test_labels.jsonl"
        assert value_of("--result-file", score) == value_of("--answers-file", the_call(workplace))
        assert value_of("--output", score) == value_of("--result-file", score).replace(".jsonl", ".json")


def test_the_environment_that_make_has_set_up_serves_where_python_lacks_transformers(workplace):
    workplace.run("true")
    binaries = workplace.folder.parent / "bin"
    (workplace.folder / "scripts").unlink()
    (workplace.folder / "scripts").mkdir()
    for folder in ("eval", "v1_5"):
        subprocess.run(["cp", "-r", SCRIPTS / folder, workplace.folder / "scripts"], check=True)
    made = workplace.folder / ".venv" / "bin"
    made.mkdir(parents=True)
    (binaries / "python").rename(made / "python")
    bare = f"{binaries.parent / 'bare'}"
    Path(bare).mkdir()
    workplace.put_stub(Path(bare) / "python", "false")
    result = workplace.run(f'PATH="{bare}:/usr/bin:/bin" bash scripts/v1_5/eval/gqa.sh 64')
    assert result.returncode == 0, result.stderr
    assert value_of("--visual_token_num", the_call(workplace)) == "64"
