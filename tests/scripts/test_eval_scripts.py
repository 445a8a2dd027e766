"""Dry runs of what the driver does for every benchmark: options, the path of the answers, devices and failures."""

import json
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
GQA = "bash scripts/v1_5/eval/gqa.sh"


def eventually(condition, seconds=120):
    """Whether a condition comes true within some seconds."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


WRONG = ["divprune", "64 divprune", "-5", "--pruner divprune", "64 --split", "64 --launcher", "64 --launcher mpi"]
OF_THE_SCRIPT = ["64 --question-file mine.jsonl", "64 --model-path=checkpoints/mine", "64 --num-chunks 2"]


@pytest.mark.parametrize("arguments", [*WRONG, *OF_THE_SCRIPT])
def test_explains_itself_when_called_wrongly(workplace, arguments):
    result = workplace.run(f"{GQA} {arguments}")
    assert result.returncode == 2
    assert "usage: bash scripts/v1_5/eval/gqa.sh TOKENS" in result.stderr
    assert "--split SPLIT    one of: llava_gqa_testdev_balanced" in result.stderr
    assert workplace.calls() == []


def test_help_is_no_error(workplace):
    result = workplace.run(f"{GQA} 64 --help")
    assert result.returncode == 0 and "usage: bash scripts/v1_5/eval/gqa.sh TOKENS" in result.stdout
    assert workplace.calls() == []


def test_a_dry_run_prints_the_commands_that_ask(workplace):
    result = workplace.run(f"{GQA} 64 --dry-run", CUDA_VISIBLE_DEVICES="0,1")
    commands = result.stdout.splitlines()
    assert len(commands) == 2 and all("-m llava.eval.model_vqa_loader" in command for command in commands)
    assert workplace.calls() == []


def test_places_come_from_the_environment(workplace):
    environment = {"DATA_DIR": "/big disk/data", "CKPT_DIR": "/big disk/models", "CKPT": "llava-v1.5-13b"}
    asked = workplace.ask(f"{GQA} 64", **environment)
    assert asked["--question-file"] == "./playground/data/eval/gqa/llava_gqa_testdev_balanced.jsonl"
    assert asked["--image-folder"] == "/big disk/data/gqa/data/images"
    assert asked["--model-path"] == "/big disk/models/llava-v1.5-13b"


class TestOptions:
    def test_reach_python_as_they_are(self, workplace):
        asked = workplace.ask(f"{GQA} 64 --pruner random --seed=3 --model-base 'my models/a'")
        assert "--seed=3" in asked.options and asked["--model-base"] == "my models/a"
        assert asked["--pruner"] == "random"

    def test_a_bare_number_is_visprunes_important_ratio(self, workplace):
        call = workplace.ask(f"{GQA} 64 0.75 --batch_size 4")
        assert call["--pruner"] == "vispruner"
        assert call["--important_ratio"] == "0.75"
        assert call["--visual_token_num"] == "64"
        assert call["--batch_size"] == "4"

    def test_a_named_pruner_wins_over_the_bare_number(self, workplace):
        result = workplace.run(f"{GQA} 64 0.75 --pruner mfpruner")
        assert result.returncode == 2 and "mfpruner has no option important_ratio" in result.stderr

    def test_the_caller_overrides_the_defaults(self, workplace):
        call = workplace.ask(f"{GQA} 64 --temperature 0.2 --conv-mode llava_v1 --anyres fixed")
        assert call["--temperature"] == "0.2"
        assert call["--conv-mode"] == "llava_v1"
        assert call["--anyres"] == "fixed"

    def test_no_pruner_takes_no_budget(self, workplace):
        assert "--visual_token_num" not in workplace.ask(f"{GQA} --pruner none").options
        result = workplace.run(f"{GQA} 64 --pruner none")
        assert result.returncode == 2 and "none keeps every token" in result.stderr

    def test_the_template_follows_the_checkpoint(self, workplace):
        for name, template in {"llava-v1.6-mistral-7b": "mistral_instruct", "llava-v1.6-34b": "chatml_direct"}.items():
            assert workplace.run("bash scripts/v1_6/eval/qbench.sh 64", CKPT=name).returncode == 0
            assert workplace.calls("model_vqa_qbench")[-1]["--conv-mode"] == template


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
            ("64 --batch_size 8 --num_workers 2 --device cpu --on-error skip --overwrite", "cdpruner/vtn_64"),
            ("64 --dtype float32", "cdpruner/vtn_64_dtypefloat32"),
            ("64 --anyres fixed", "cdpruner/vtn_64_fixed"),
            ("--keep_ratio 0.25", "cdpruner/ratio_0.25"),
            ("--pruner none", "none/full"),
        ],
    )
    def test_tells_pruner_and_setting(self, workplace, arguments, path):
        found = workplace.answers_path(f"{GQA} {arguments}")
        assert found == f"llava_gqa_testdev_balanced/llava-v1.5-7b/{path}.jsonl"

    @pytest.mark.parametrize(
        ("spellings", "path"),
        [
            (["036 --pruner=divprune", "--visual_token_num 3_6 --pruner random --pruner divprune"], "divprune/vtn_36"),
            (["--keep_ratio .25 --keep_ratio .5", "--keep_ratio=0.50 --positions compact"], "cdpruner/ratio_0.5"),
            (
                ["64 .750", "64 --important_ratio 0.75 --pruner vispruner", "64 --important_ratio=75e-2"],
                "vispruner/vtn_64_r0.75",
            ),
            (["64 0.5", "064 .50", "64 --important_ratio 5e-1"], "vispruner/vtn_64"),
            (["--keep_ratio 1", "--keep_ratio 1.0", "--keep_ratio 1."], "cdpruner/ratio_1"),
            (
                ["64 --theta 0.3 --dtype float32 --prune_layer 2", "64 --prune_layer 02 --theta=.3 --dtype float32"],
                "cdpruner/vtn_64_prune_layer2_theta0.3_dtypefloat32",
            ),
        ],
    )
    def test_is_one_for_one_setting_however_it_is_written(self, workplace, spellings, path):
        found = {workplace.answers_path(f"{GQA} {arguments}") for arguments in spellings}
        assert found == {f"llava_gqa_testdev_balanced/llava-v1.5-7b/{path}.jsonl"}

    def test_of_a_run_that_is_refused_leaves_no_folder(self, workplace):
        workplace.trouble = "0"
        result = workplace.run(f"{GQA} 64")
        assert result.returncode == 3 and not (workplace.folder / "playground").exists()

    def test_tells_the_layouts_of_one_checkpoint_apart(self, workplace):
        runs = {
            "v1_6/eval/gqa.sh 64": "vtn_64",
            "v1_6/eval/gqa.sh 64 --anyres native": "vtn_64_native",
            "v1_5/eval/gqa.sh 64": "vtn_64_native",
            "v1_5/eval/gqa.sh 64 --anyres fixed": "vtn_64",
        }
        for arguments, setting in runs.items():
            path = workplace.answers_path(f"bash scripts/{arguments}", CKPT="llava-v1.6-vicuna-7b")
            assert path.endswith(f"/llava-v1.6-vicuna-7b/cdpruner/{setting}.jsonl")

    def test_an_option_with_a_slash_makes_no_folder(self, workplace):
        path = workplace.answers_path(f"{GQA} 64 --model-base models/vicuna")
        assert path.endswith("/vtn_64_model-basemodels-vicuna.jsonl")


class TestDevices:
    def test_each_gets_a_process_and_the_answers_are_merged_in_order(self, workplace):
        result = workplace.run("bash scripts/v1_5/eval/pope.sh 64", CUDA_VISIBLE_DEVICES="4,2,7")
        assert result.returncode == 0, result.stderr
        calls = workplace.asking()
        assert [call.device for call in calls] == ["4", "2", "7"]
        assert [call["--num-chunks"] for call in calls] == ["3", "3", "3"]
        run = workplace.folder / "playground/data/eval/pope/answers/llava_pope_test/llava-v1.5-7b/cdpruner/vtn_64"
        assert run.with_suffix(".jsonl").read_text().split("\n")[:3] == [f"answers of rank {i}" for i in range(3)]
        parts = [f"3_{rank}.{kind}" for rank in range(3) for kind in ("jsonl", "jsonl.run", "log")]
        assert sorted(path.name for path in run.iterdir()) == parts
        assert (run / "3_1.log").read_text() == "progress of rank 1\n"

    def test_the_merged_answers_are_those_of_a_single_chunk(self, workplace):
        path = workplace.answers_path("bash scripts/v1_5/eval/pope.sh 64", CUDA_VISIBLE_DEVICES="0,1")
        header = workplace.folder / "playground/data/eval/pope/answers" / f"{path}.run"
        assert json.loads(header.read_text()) == {"settings": {"num_chunks": 1, "chunk_idx": 0}}

    @pytest.mark.parametrize(
        ("launcher", "start"),
        [
            ("torchrun", "torch.distributed.run --nproc-per-node 3 --standalone"),
            ("accelerate", "accelerate.commands.launch --num_processes 3"),
            ("torchrun --nnodes 2", "torch.distributed.run --nproc-per-node 3 --nnodes 2"),
        ],
    )
    def test_a_launcher_may_start_the_processes(self, workplace, launcher, start):
        asked = workplace.ask(f"{GQA} 64 --launcher '{launcher}'", CUDA_VISIBLE_DEVICES="4,2,7")
        module, *words = start.split()
        assert asked.module == module and asked.device == "4,2,7"
        assert asked.options[: len(words) + 2] == [*words, "-m", "llava.eval.model_vqa_loader"]
        assert asked["--num-chunks"] == "1" and "--launcher" not in asked.options
        assert asked["--answers-file"].endswith("/cdpruner/vtn_64.jsonl")

    def test_the_first_process_shows_its_progress(self, workplace):
        result = workplace.run("bash scripts/v1_5/eval/pope.sh 64", CUDA_VISIBLE_DEVICES="0,1")
        assert "progress of rank 0" in result.stdout and "progress of rank 1" not in result.stdout

    @pytest.mark.parametrize("devices", ["4,2,", " 4 2 ", "4, 2"])
    def test_no_process_has_an_empty_name_for_a_device(self, workplace, devices):
        workplace.run("bash scripts/v1_5/eval/pope.sh 64", CUDA_VISIBLE_DEVICES=devices)
        assert sorted(call.device for call in workplace.asking()) == ["2", "4"]

    @pytest.mark.parametrize("devices", ["", "3", ","])
    def test_one_or_none_is_left_to_the_caller(self, workplace, devices):
        call = workplace.ask("bash scripts/v1_5/eval/pope.sh 64", CUDA_VISIBLE_DEVICES=devices)
        assert call.device == devices
        assert call["--num-chunks"] == "1"

    def test_runs_on_different_numbers_of_devices_share_no_part(self, workplace):
        for devices in ("0,1", "0,1,2"):
            workplace.run("bash scripts/v1_5/eval/pope.sh 64", CUDA_VISIBLE_DEVICES=devices)
        parts = [call["--answers-file"] for call in workplace.asking()]
        assert len(parts) == len(set(parts)) == 5

    def test_a_failed_process_stops_the_script_before_scoring_and_names_its_log(self, workplace):
        workplace.trouble = "1"
        result = workplace.run("bash scripts/v1_5/eval/shapes.sh 36", CUDA_VISIBLE_DEVICES="0,1,2")
        assert result.returncode == 1
        (log,) = re.findall("a process failed, its log: (.*)", result.stderr)
        assert log.endswith("/cdpruner/vtn_36/3_1.log") and (workplace.folder / log).is_file()
        assert not (workplace.folder / log).parent.with_suffix(".jsonl").exists()
        assert workplace.calls("score shapes") == []

    def test_a_failed_single_process_stops_the_script_too(self, workplace):
        workplace.trouble = "0"
        result = workplace.run("bash scripts/v1_5/eval/shapes.sh 36")
        assert result.returncode == 3 and "answers:" not in result.stdout
        assert workplace.calls("score shapes") == []

    def test_a_killed_single_process_is_told_as_shells_tell_it(self, workplace):
        workplace.trouble = "killed"
        result = workplace.run("bash scripts/v1_5/eval/shapes.sh 36")
        assert result.returncode == 137 and "ended by signal 9" in result.stderr and "answers:" not in result.stdout

    @pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
    def test_interrupting_the_script_ends_every_process(self, workplace, name):
        workplace.trouble = "hang"
        script = workplace.start("bash scripts/v1_5/eval/pope.sh 64", CUDA_VISIBLE_DEVICES="0,1")
        assert eventually(lambda: len(workplace.asking()) == 2)
        script.send_signal(getattr(signal, name))
        assert script.wait(timeout=120) != 0
        assert eventually(lambda: not any(call.is_running() for call in workplace.asking()))


class TestShapes:
    def test_draws_its_questions_once(self, workplace):
        folder = workplace.folder / "playground/data/eval/shapes"
        assert workplace.run("bash scripts/v1_5/eval/shapes.sh 36").returncode == 0
        questions = folder / "shapes_test.jsonl"
        assert len(questions.read_text().splitlines()) == 1000
        questions.write_text("left alone")
        assert workplace.run("bash scripts/v1_5/eval/shapes.sh 18").returncode == 0
        assert questions.read_text() == "left alone"

    def test_uses_the_model_that_comes_with_the_repository(self, workplace):
        path = workplace.answers_path("bash scripts/v1_5/eval/shapes.sh 36", CKPT_DIR="/models")
        assert path == "shapes_test/llava-shapes/cdpruner/vtn_36.jsonl"
        checkpoint = Path(workplace.asking()[0]["--model-path"])
        embedded = SCRIPTS.parent / "llava" / "shapes" / "checkpoints" / "llava-shapes"
        assert (workplace.folder / checkpoint).resolve() == embedded

    def test_or_the_checkpoint_that_is_named(self, workplace):
        asked = workplace.ask("bash scripts/v1_5/eval/shapes.sh 36", CKPT_DIR="/models", CKPT="mine")
        assert asked["--model-path"] == "/models/mine"


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
    process = workplace.start(f'PATH="{bare}:/usr/bin:/bin" bash scripts/v1_5/eval/gqa.sh 64')
    assert process.wait(timeout=120) == 0
    (call,) = workplace.calls()
    assert call.module == "llava.eval run" and call.options == ["gqa", "v1_5", "64"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--visual_token_num 6.4", "--visual_token_num"),
        ("--visual_token_num nan", "--visual_token_num"),
        ("--visual_token_num -5", "--visual_token_num"),
        *((f"--keep_ratio {share}", "--keep_ratio") for share in ("0", "0.0", "nan", "inf", "1.5", "-0.5", "x")),
        ("64 --important_ratio 1.5", "important_ratio"),
        ("64 --important_ratio=nan", "important_ratio"),
        ("64 nan", "unrecognized arguments: nan"),
        ("1e2", "unrecognized arguments: 1e2"),
    ],
)
def test_a_budget_that_is_none_is_named_before_anything_runs(workplace, arguments, message):
    result = workplace.run(f"bash scripts/v1_5/eval/gqa.sh {arguments}")
    assert result.returncode == 2 and message in result.stderr.splitlines()[-1]
    assert not workplace.calls()
