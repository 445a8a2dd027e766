"""The command ``llava``: help and errors come before torch, and what it runs are the programs of the package."""

import statistics
import subprocess
import sys
import time

import pytest

import llava
from llava import cli
from llava.eval import __main__ as of_eval
from llava.eval.tasks import TASKS
from llava.pruners import PRUNERS

HEAVY = ("torch", "transformers", "matplotlib", "pandas", "gradio", "accelerate")
EVALUATION = [["eval", name] for name in of_eval.PROGRAMS] + [["eval", "score", "gqa"], ["eval", "submit", "gqa"]]
EVALUATION += [["eval"], ["eval", "gqa"], ["eval", "gqa", "v1_5"], ["eval", "run"], ["eval", "sweep"]]
DOCTOR = [["doctor", part] for part in ("env", "data", "checkpoint")]
EXPLAINED = [[], *([name] for name in cli.PROGRAMS), *EVALUATION, *DOCTOR]
NEITHER = f"found = sorted({{*{HEAVY}}} & sys.modules.keys()); found and sys.exit(f'imported: {{found}}')"


def call(*words: str) -> tuple[subprocess.CompletedProcess, str]:
    """Run the command in a process of its own; the last line of its output says which large packages it imported."""
    code = f"import sys\nfrom llava.cli import main\ntry:\n    main({list(words)})\n"
    code += "finally:\n    print('imported', *{*sys.modules} & {" + ", ".join(map(repr, HEAVY)) + "})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    shown, _, imported = result.stdout.rstrip("\n").rpartition("imported")
    result.stdout = shown
    return result, imported.strip()


@pytest.mark.parametrize("words", EXPLAINED, ids=" ".join)
def test_help_comes_without_torch(words):
    result, imported = call(*words, "--help")
    assert (result.returncode, imported) == (0, "") and result.stdout.startswith("usage: ")
    called = " ".join(["llava", *words])
    assert called in result.stdout or words[:2] == ["eval", "gqa"]


@pytest.mark.parametrize("words", [[], *([name] for name in cli.COMMANDS)], ids=" ".join)
@pytest.mark.slow
def test_help_comes_in_half_a_second(words):
    """The median of five; other processes of a busy machine are given as much time again."""
    took = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "llava", *words, "--help"], capture_output=True, check=True)
        took.append(time.perf_counter() - start)
    assert statistics.median(took) < 1.0, took


MISTYPED = {
    "aks a.png What?": "unknown command 'aks'; did you mean ask?",
    "--modle x": "unknown option '--modle'; valid are ask, chat, web, eval",
    "": "a command is missing",
    "ask a.png What? --pruner cdprunr": "invalid choice: 'cdprunr' .* did you mean cdpruner?",
    "ask a.png What? --budget spectrl": "invalid choice: 'spectrl' .* did you mean spectral?",
    "ask a.png What? --visual-token-num 4": "unrecognized arguments: .* did you mean --visual_token_num?",
    "ask a.png What? --dtype float8": "invalid choice: 'float8' .* did you mean float",
    "chat a.png --anyres nativ": "invalid choice: 'nativ' .* did you mean native?",
    "eval gqaa v1_5 64": "'gqaa' is no program and no benchmark; .* did you mean gqa?",
    "eval tabel": "'tabel' is no program and no benchmark; .* did you mean table?",
    "eval gqa v15 64": "unknown version 'v15'; valid are v1_5, v1_6; did you mean v1_5?",
    "eval gqa": "VERSION is missing behind gqa; valid are v1_5, v1_6",
    "eval gqa v1_5": "cdpruner needs a budget: TOKENS, such as 64, or --keep_ratio 0.25; --pruner none keeps all",
    "eval gqa v1_5 64 --pruner visprune": "invalid choice: 'visprune' .* did you mean vispruner?",
    "eval gqa v1_5 64 --split testdev": "invalid choice: 'testdev'",
    "eval score gqaa": "unknown benchmark 'gqaa'; .* did you mean gqa?",
    "eval table --format markdwn": "invalid choice: 'markdwn' .* did you mean markdown?",
    "eval sweep gqa v1_5 --pruners cdprunr --budgets 64": "unknown pruner 'cdprunr'; .* did you mean cdpruner?",
    "eval sweep gqa v1_5 --pruners cdpruner divprune --budgets 64": "'divprune' belongs to no flag; --pruners and",
    "eval sweep gqa v1_5 --pruners cdpruner:theat=1": "'theat=1' is no option of a pruner; .* did you mean theta?",
    "ask nowhere.png What?": "cannot read nowhere.png: no such file",
    "ask http://a/b.png What? --model nowhere": "cannot load nowhere: no such folder, and not a hub id of the form",
    "chat nowhere.png": "cannot read nowhere.png: no such file",
    "report nowhere": "RESULTS nowhere: no such folder",
    "demo --pruners cdprunr": "unknown pruner 'cdprunr'; .* did you mean cdpruner?",
    "demo --dtype flaot16": "invalid choice: 'flaot16' .* did you mean float16?",
    "bench --suite selct": "invalid choice: 'selct' .* did you mean select?",
    "doctor dat": "invalid choice: 'dat' .* did you mean data?",
    "doctor data gqaa": "unknown benchmark 'gqaa'; .* did you mean gqa?",
    "convert --model-path a --output-path b --to lava": "invalid choice: 'lava' .* did you mean llava?",
    "pruners cdprunr": "unknown pruner cdprunr; .* did you mean cdpruner?",
}


@pytest.mark.parametrize("words", MISTYPED)
def test_a_mistyped_name_is_told_before_torch_is_imported(words):
    result, imported = call(*words.split())
    assert result.returncode != 0 and imported == ""
    start, _, end = MISTYPED[words].partition(" .* ")
    (said,) = result.stderr.strip().splitlines()[-1:]
    assert said.startswith("llava") or said.startswith("bash scripts/")
    assert ": error: " in said and start in said and end in said


def test_usage_names_every_command_and_no_other(capsys):
    cli.main(["--help"])
    shown = capsys.readouterr().out
    listed = [line.split()[0] for line in shown.splitlines() if line.startswith("  ")]
    assert listed == list(cli.COMMANDS) and {*cli.PROGRAMS, "eval"} == {*cli.COMMANDS}


def test_the_version_is_the_packages(capsys):
    cli.main(["--version"])
    assert capsys.readouterr().out == f"llava {llava.__version__}\n"


@pytest.mark.parametrize("name", cli.PROGRAMS)
def test_what_a_command_runs_is_there(name):
    parser, program, rest = cli.program_of([name, "word"])
    assert parser.prog == f"llava {name}" and rest == ["word"]
    module, function = cli.PROGRAMS[name][1].split()
    assert callable(getattr(__import__(module, fromlist=[function]), function))


@pytest.mark.parametrize("name", cli.PROGRAMS)
def test_every_word_of_a_command_is_described(name):
    parsers = [cli.program_of([name])[0]]
    for parser in parsers:
        for action in parser._actions:
            assert action.help, action.dest
            if isinstance(action.choices, dict):  # of a command in parts
                parsers += action.choices.values()


def test_a_benchmark_is_run_by_its_name_alone(monkeypatch):
    for task in TASKS:
        parser, program, rest = cli.program_of(["eval", task, "v1_5", "64"])
        assert (parser.prog, rest) == ("llava eval run", [task, "v1_5", "64"])
        assert parser.parse_args(rest).words == rest


def test_pruners_are_described_as_by_their_own_program(capsys):
    cli.main(["pruners", "divprune"])
    one = capsys.readouterr().out
    cli.main(["pruners"])
    assert one in capsys.readouterr().out + "\n" and one.startswith("divprune\n  keeps")


def test_all_pruners_are_described(capsys):
    cli.main(["pruners"])
    shown = capsys.readouterr().out
    assert [line for line in shown.splitlines() if line and line[0] != " "] == list(PRUNERS)
