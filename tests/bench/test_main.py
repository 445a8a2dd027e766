import json
import re
import shlex
import subprocess
import sys
from functools import cached_property
from pathlib import Path

import pytest

from llava.bench import __main__ as program
from llava.bench import flops, prefill, report, select
from llava.bench.gpu import __main__ as gpu_program
from llava.bench.select import Case
from llava.command import run_program
from llava.records import InputError


@pytest.fixture
def run(monkeypatch, model, shape):
    """Run the command line on the small model."""
    monkeypatch.setitem(flops.SHAPES, "7b", shape)
    monkeypatch.setattr(prefill, "LLAVA_15", (16, 4))
    monkeypatch.setattr(select, "cases", lambda width: [Case("divprune", 1, 36, width, 4)])
    small = cached_property(lambda bench: model)
    small.__set_name__(program.Bench, "model")
    monkeypatch.setattr(program.Bench, "model", small)

    def run(*words: str) -> None:
        run_program(program.build_parser(), program.bench, ["--layers", "2", "--reps", "1", *words])

    return run


def test_json_holds_the_settings_and_every_row(run, tmp_path, capsys):
    file = tmp_path / "results" / "bench.json"
    run("--suite", "select", "prefill", "e2e", "--json", str(file), "--seed", "5")
    results = json.loads(file.read_text())
    assert set(results) == {"meta", "rows", "prefill"}
    assert {"versions", "commit", "cpu", "gpu", "threads", "date", "device", "seed", "model", "layers", "load"} <= set(
        results["meta"]
    )
    assert (results["meta"]["seed"], results["meta"]["threads"], results["meta"]["device"]) == (5, 1, "cpu")
    assert [row["suite"] for row in results["rows"]] == ["select"] + ["e2e"] * 5
    assert {
        *("suite", "method", "variant", "N", "B", "D", "T", "dtype", "cpu_ms", "wall_ms", "min_ms", "n", "noisy"),
        *("ratio_to_reference", "equal", "gram_gflop", "full_gram_gflop", "ops", "peak_mb"),
    } <= set(results["rows"][0])
    assert {"n", "visual", "ms", "speedup", "flop_ratio", "kv_mb", "cut_with_text", "cut_visual_only"} <= set(
        results["prefill"][0]
    )
    printed = capsys.readouterr().out
    assert all(f"== {suite} ==" in printed for suite in ("select", "prefill", "e2e"))


def test_what_is_measured_is_saved_before_a_later_suite_fails(run, tmp_path, monkeypatch):
    file = tmp_path / "bench.json"
    monkeypatch.setattr(program.Bench, "prefill", lambda bench: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("--suite", "select", "prefill", "--json", str(file))
    assert [row["suite"] for row in json.loads(file.read_text())["rows"]] == ["select"]


def test_a_suite_asked_for_twice_runs_once(run, capsys):
    run("--suite", "select", "select")
    assert capsys.readouterr().out.count("== select ==") == 1


def test_every_suite_has_a_method_and_columns():
    assert set(program.SUITES) == set(report.COLUMNS)
    assert all(callable(getattr(program.Bench, suite)) for suite in program.SUITES)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--layers", "33"], "--layers 33: a 7b has 32"),
        (["--official-root", "no/such/folder"], "--official-root no/such/folder: no such folder"),
        (["--json", "/proc/none/bench.json"], "/proc/none"),
    ],
)
def test_what_cannot_work_is_said_before_anything_runs(words, message):
    with pytest.raises(InputError, match=message):
        program.check(program.build_parser().parse_args(words))


def test_without_a_gpu_cuda_is_refused(monkeypatch):
    monkeypatch.setattr(program.torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="--device cuda.*valid here is cpu"):
        program.check(program.build_parser().parse_args(["--device", "cuda"]))


@pytest.mark.parametrize("words", [["--memory-gb", "0"], ["--reps", "0"], ["--suite", "speed"], ["--threads", "x"]])
def test_senseless_values_are_usage_errors(words, capsys):
    with pytest.raises(SystemExit):
        program.build_parser().parse_args(words)
    assert words[0] in capsys.readouterr().err


def test_the_documented_commands_are_valid():
    document = Path(__file__).parents[2] / "docs" / "performance.md"
    commands = re.findall(r"^python -m llava\.bench(|\.gpu)( .*)$", document.read_text(), re.MULTILINE)
    parsers = {"": program.build_parser(), ".gpu": gpu_program.build_parser()}
    assert {module for module, _ in commands} == set(parsers)
    for module, words in commands:
        parsers[module].parse_args(shlex.split(words))


def test_the_program_starts_without_transformers():
    code = "import sys, llava.bench.__main__; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_table_aligns_its_columns_and_leaves_out_those_without_values():
    rows = [
        {"method": "none", "T": 576, "total_ms": 12.0, "speedup": 1.0, "noisy": False, "layers_run": 4, "layers": 32}
    ]
    rows += [rows[0] | {"method": "cdpruner", "speedup": 2.5, "selection_share": 0.012, "noisy": True}]
    title, head, none, pruned, note = report.table("e2e", rows).splitlines()
    assert title == "== e2e ==" and "from 4 to 32 layers" in note
    assert head.split() == ["pruner", "T", "total", "speed-up", "selection", "/", "prefill", "noisy"]
    assert none.split() == ["none", "576", "12", "1.00", "no"]
    assert pruned.split() == ["cdpruner", "576", "12", "2.50", "1.20%", "yes"]
    assert len(head) == len(none) == len(pruned)
