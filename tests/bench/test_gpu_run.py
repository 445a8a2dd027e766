"""The run around the parts: what is refused, what goes on, and what is written when."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llava.bench.gpu import __main__ as program
from llava.bench.gpu import parts
from llava.command import run_program
from llava.records import InputError

REPOSITORY = Path(__file__).parents[2]
SCRIPT = REPOSITORY / "scripts" / "gpu.sh"
ON_CPU = ["--device", "cpu", "--small"]
WRITES = "import json, sys; open(sys.argv[1], 'w').write(json.dumps({}));"
ROW = '{"rows": [{"equal": True}], "notes": [], "done": True}'


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run the program with a line of Python in place of each part, None for the part itself."""

    def run(codes: dict[str, str], *words: str) -> dict:
        def command(name, args, file):
            seen = tmp_path / "out" / "gpu.json"
            code = f"import os; before = os.path.getsize({str(seen)!r}) > 0; {codes[name]}"
            return [sys.executable, "-c", code, str(file)]

        monkeypatch.setattr(program, "_command", command)
        words = [*ON_CPU, "--out", str(tmp_path / "out"), "--parts", *codes, *words]
        try:
            run_program(program.build_parser(), program.gpu, words)
            status = None
        except SystemExit as end:
            status = end.code
        return json.loads((tmp_path / "out" / "gpu.json").read_text()) | {"exit": status}

    return run


def writes(result: str) -> str:
    return WRITES.format(result)


def test_all_is_done_and_written_with_what_it_depends_on(run, capsys):
    slow = writes(ROW) + "import time; time.sleep(0.2)"
    results = run({"golden": slow, "select": writes(ROW)}, "--commit", "abc1234")
    assert results["exit"] is None and list(results["parts"]) == ["golden", "select"]
    part = results["parts"]["golden"]
    assert (part["status"], part["reason"], part["rows"]) == ("done", None, [{"equal": True}])
    assert part["seconds"] > 0 and results["meta"]["seconds"] >= part["seconds"]
    meta = results["meta"]
    assert {"versions", "commit", "cpu", "gpu", "date", "card", "device", "small"} <= set(meta)
    assert {"torch", "cuda", "triton", "transformers", "python"} <= set(meta["versions"])
    assert (meta["commit"], meta["device"], meta["small"]) == ("abc1234", "cpu", True)
    assert results["goals"][0]["value"] == 1
    assert "golden: done, 1 rows" in capsys.readouterr().out


def test_a_commit_that_nobody_knows_is_unknown(run, monkeypatch):
    monkeypatch.setattr("llava.provenance.commit", lambda: None)
    assert run({"golden": writes(ROW)})["meta"]["commit"] == "unknown"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (writes('{"rows": [1], "notes": [], "reason": "it is wrong"}'), "it is wrong"),
        (writes('{"rows": [1], "notes": []}') + "os._exit(3)", "its process ended with status 3; see gpu.log"),
        (writes('{"rows": [1], "notes": []}') + "os.abort()", "its process ended with status -6; see gpu.log"),
        (writes('{"rows": [1], "notes": []}') + "import time; time.sleep(60)", "ended after 1 s"),
    ],
    ids=["wrong", "status", "signal", "time"],
)
def test_a_part_that_fails_is_named_its_rows_kept_and_the_others_go_on(run, monkeypatch, code, reason, capsys):
    monkeypatch.setitem(parts.PARTS, "select", parts.Part(parts.select, 1))
    results = run({"select": code, "golden": writes(ROW)})
    failed = results["parts"]["select"]
    assert (failed["status"], failed["reason"], failed["rows"]) == ("failed", reason, [1])
    assert results["parts"]["golden"]["status"] == "done"
    assert results["exit"].startswith("failed: select; ")
    assert f"select: failed, 1 rows, {failed['seconds']:.0f} s; {reason}" in capsys.readouterr().out


def test_what_a_part_started_ends_with_it(run, monkeypatch, tmp_path):
    monkeypatch.setitem(parts.PARTS, "select", parts.Part(parts.select, 1))
    child = f"import time; time.sleep(2); open({str(tmp_path / 'left')!r}, 'w')"
    run({"select": f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"})
    subprocess.run([sys.executable, "-c", "import time; time.sleep(2)"], check=True)
    assert not (tmp_path / "left").exists()


def test_every_part_is_written_before_the_next_begins(run):
    code = writes(ROW.replace("True}", "before}"))
    results = run({"golden": code, "select": code})
    assert [part["rows"] for part in results["parts"].values()] == [[{"equal": False}], [{"equal": True}]]


def test_a_part_whose_package_is_missing_is_listed_and_none_that_failed(run, monkeypatch):
    monkeypatch.setitem(parts.PARTS, "select", parts.Part(parts.select, 1, ("no_such_package", "torch")))
    results = run({"select": "raise RuntimeError", "golden": writes(ROW)})
    assert results["parts"]["select"]["status"] == "missing"
    assert results["parts"]["select"]["reason"] == "not installed: no_such_package"
    assert results["exit"] is None


def test_what_the_time_does_not_suffice_for_is_not_started(run):
    results = run({"golden": writes(ROW)}, "--minutes", "0.05")
    assert results["parts"]["golden"]["reason"] == "not started: the time was over"
    assert results["exit"]


def test_the_order_of_the_parts_is_that_of_their_importance():
    assert list(parts.PARTS)[:4] == ["golden", "tests", "image_side", "saturation"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--device", "cpu"], "--device cpu: only with --small"),
        ([*ON_CPU, "--official-root", "no/such"], "--official-root no/such: no such folder"),
        ([*ON_CPU, "--out", "/proc/none"], "/proc/none"),
    ],
)
def test_what_cannot_work_is_said_before_anything_runs(words, message):
    with pytest.raises(InputError, match=message):
        program.check(program.build_parser().parse_args(words))


def test_a_package_without_its_checkout_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(program, "TESTS", tmp_path / "tests")
    with pytest.raises(InputError, match="from a checkout"):
        program.check(program.build_parser().parse_args(ON_CPU))


def script(*words: str, folder: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(["bash", SCRIPT, *words], cwd=folder, env=environment, capture_output=True, text=True)


def test_without_a_gpu_the_script_says_so_in_one_line(tmp_path):
    result = script(folder=tmp_path)
    assert result.returncode == 1 and result.stdout == "" and not list(tmp_path.iterdir())
    assert result.stderr.count("\n") == 1 and "no GPU: torch sees no CUDA device" in result.stderr


def test_the_script_runs_from_any_folder(tmp_path):
    result = script(*ON_CPU, "--out", "out", "--parts", "golden", folder=tmp_path)
    results = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert result.returncode == 0, result.stdout + result.stderr
    assert results["parts"]["golden"]["status"] == "done" and (tmp_path / "out" / "gpu.log").is_file()


@pytest.mark.slow
def test_all_parts_run_on_a_cpu(tmp_path):
    result = script(*ON_CPU, "--out", "out", folder=tmp_path)
    results = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert result.returncode == 0, result.stdout + result.stderr
    assert {name: part["status"] for name, part in results["parts"].items()} == dict.fromkeys(parts.PARTS, "done")
