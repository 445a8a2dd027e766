"""Dry runs of every benchmark's script; what each comes to, word by word, is recorded in tests/golden/plans.json."""

import json
from pathlib import Path

import pytest

from llava.eval.tasks import TASKS

SCRIPTS = Path(__file__).parents[2] / "scripts"
EVAL = "./playground/data/eval"
ENVIRONMENT = {"DATA_DIR": "big disk/data", "CKPT_DIR": "/models"}
WRAPPERS = sorted(SCRIPTS.glob("v1_*/eval/*.sh"))


@pytest.fixture
def data(workplace):
    """What a run would make: ScienceQA's questions with images, and the drawn shapes."""
    for name in ("scienceqa/llava_test_CQM-I.json", "shapes/shapes_test.jsonl", "shapes/shapes_test_labels.jsonl"):
        for folder in (workplace.folder / EVAL, workplace.folder / "big disk/data"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()


def test_every_benchmark_has_its_scripts():
    assert {path.stem for path in (SCRIPTS / "v1_5/eval").glob("*.sh")} == set(TASKS)
    assert {path.stem for path in (SCRIPTS / "v1_6/eval").glob("*.sh")} == set(TASKS) - {"shapes"}


@pytest.mark.parametrize("script", WRAPPERS, ids=lambda path: "/".join(path.parts[-3:]))
def test_a_script_is_two_lines_on_the_one_that_runs_them_all(script):
    first, second = script.read_text().splitlines()
    assert first == "#!/usr/bin/env bash"
    assert second == f'exec bash "$(dirname "$0")/../../eval/run.sh" {script.stem} {script.parts[-3]} "$@"'


@pytest.mark.parametrize("command", ["scripts/v1_5/eval/gqa.sh 64 '0.75' --x 'a b'", "scripts/eval/run.sh gqa v1_5 64"])
def test_a_script_hands_its_words_on_as_they_are(workplace, command):
    process = workplace.start(f"bash {command}")
    assert process.wait(timeout=120) == 0
    (call,) = workplace.calls()
    words = ["gqa", "v1_5", "64", "0.75", "--x", "a b"]
    assert call.module == "llava.eval run" and call.options == words[: len(call.options)]


@pytest.mark.parametrize("benchmark", TASKS)
class TestEveryBenchmark:
    def test_gives_every_program_what_its_command_line_takes(self, workplace, data, benchmark):
        workplace.ask(f"bash scripts/v1_5/eval/{benchmark}.sh 64 0.5 --batch_size 2 --on-error skip", **ENVIRONMENT)
        for call in workplace.calls():
            args = call.parser().parse_args(call.options)
            assert "--chunk-idx" not in call.options or (args.pruner, args.important_ratio) == ("vispruner", 0.5)

    def test_explains_itself_when_the_budget_is_missing(self, workplace, benchmark):
        result = workplace.run(f"bash scripts/v1_5/eval/{benchmark}.sh")
        assert result.returncode == 2 and "needs a budget" in result.stderr
        assert f"usage: bash scripts/v1_5/eval/{benchmark}.sh TOKENS" in result.stderr
        assert workplace.calls() == []

    def test_a_failed_process_of_three_stops_it_before_scoring(self, workplace, data, benchmark):
        workplace.trouble = "1"
        result = workplace.run(f"bash scripts/v1_5/eval/{benchmark}.sh 64", CUDA_VISIBLE_DEVICES="0,1,2", **ENVIRONMENT)
        assert result.returncode == 1 and "vtn_64/3_1.log" in result.stderr
        assert [call["--chunk-idx"] for call in workplace.asking()] == ["0", "1", "2"]
        assert all("--chunk-idx" in call.options for call in workplace.work())

    def test_looks_at_its_data_first(self, workplace, benchmark):
        workplace.trouble = "data"
        assert workplace.run(f"bash scripts/v1_5/eval/{benchmark}.sh 64", **ENVIRONMENT).returncode == 1
        (doctor,) = workplace.calls()
        assert doctor.module == "llava.eval doctor" and doctor.options[0] == benchmark
        assert doctor["--split"] == TASKS[benchmark].usual_split
        assert (doctor["--eval-dir"], doctor["--data-dir"]) == (EVAL, "big disk/data")


def test_a_split_that_does_not_exist_is_refused_with_those_that_do(workplace):
    result = workplace.run("bash scripts/v1_5/eval/qbench.sh 64 --split=train")
    assert result.returncode == 2 and "--split" in result.stderr and "one of: dev test" in result.stderr
    assert workplace.calls() == []


def test_the_questions_of_scienceqa_with_an_image_are_selected_when_their_file_is_absent(workplace):
    folder = workplace.folder / EVAL / "scienceqa"
    folder.mkdir(parents=True)
    questions = [{"id": "1"}, {"id": "2", "image": "a.png"}, {"id": "3", "image": "b.png"}]
    (folder / "llava_test_CQM-A.json").write_text(json.dumps(questions))
    asked = workplace.ask("bash scripts/v1_5/eval/sqa.sh 64")
    assert asked["--question-file"] == f"{EVAL}/scienceqa/llava_test_CQM-I.json"
    assert json.loads((folder / "llava_test_CQM-I.json").read_text()) == questions[1:]
    (folder / "llava_test_CQM-I.json").write_text("left alone")
    workplace.run("bash scripts/v1_5/eval/sqa.sh 64 --split llava_test_CQM-A")
    workplace.run("bash scripts/v1_5/eval/sqa.sh 64")
    assert (folder / "llava_test_CQM-I.json").read_text() == "left alone"


@pytest.mark.parametrize("benchmark", ["mmvet", "llavabench"])
def test_stored_judgements_are_added_up(workplace, benchmark):
    first = workplace.run(f"bash scripts/v1_5/eval/{benchmark}.sh 64", **ENVIRONMENT)
    stored = workplace.folder / first.stdout.rpartition(f"put its {TASKS[benchmark].judged} at ")[2].strip()
    stored.parent.mkdir(parents=True)
    stored.touch()
    assert "not scored" not in workplace.run(f"bash scripts/v1_5/eval/{benchmark}.sh 64", **ENVIRONMENT).stdout
    scored = workplace.calls()[-1]
    assert scored.module == f"llava.eval score {benchmark}"
    assert workplace.folder / scored["--result-file"] == stored
    scored.parser().parse_args(scored.options)
