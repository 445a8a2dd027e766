"""The program that writes a report: what it needs to say help, what it writes, and what it keeps to itself."""

import json
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from llava.command import run_program
from llava.eval.pictures.private import without_folders
from llava.eval.pictures.report import build_parser, run_report
from llava.eval.results.profile import KEYS
from llava.eval.results.setting import Setting

HOME = "/home/jane.doe"


def run(*words):
    run_program(build_parser(), run_report, [str(word) for word in words])


def profiled(milliseconds):
    return dict.fromkeys(KEYS, milliseconds) | {"kv_mb": 1.5, "peak_mb": 700.0}


@pytest.fixture
def results(put, tmp_path):
    """Two questions of GQA and of POPE, asked by a person with a home folder, with and without a pruner."""
    for benchmark, folder in (
        ("gqa", "gqa/answers/llava_gqa_testdev_balanced"),
        ("pope", "pope/answers/llava_pope_test"),
    ):
        for place, value in (("none/full", 100.0), ("cdpruner/vtn_64", 50.0)):
            variant = f"model-base{HOME}/vicuna".replace("/", "-")
            setting = asdict(Setting(*place.split("/"), "native", variant, 0))
            scores = {"1": 1.0, "2": float(value == 100)}
            content = {"benchmark": benchmark, "metric": "accuracy", "value": value, "count": 2, "scores": scores}
            put(f"eval/{folder}/m/{place}.json", content | {"ci95": [value - 1, value], "setting": setting})
            run_of = {
                "model_path": f"{HOME}/m",
                "model_base": f"{HOME}/vicuna",
                "device": "cuda:0",
                "commit": "abc1234",
            }
            run_of |= {"versions": {"llava": "0.1.0", "torch": "2.13.0"}, "dtype": "float16"}
            metadata = {"visual_tokens": 64, "latency_ms": value, "profile": profiled(value / 10), "run": run_of}
            put(f"eval/{folder}/m/{place}.jsonl", [{"question_id": n, "metadata": metadata} for n in (1, 2)])
            made = {"cpu": "A CPU", "gpu": "A GPU", "threads": 8, "date": "2026-01-02T03:04:05+00:00"}
            put(f"eval/{folder}/m/{place}.jsonl.run", json.dumps({"environment": made}))
    return tmp_path / "eval"


@pytest.fixture
def written(results, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", HOME)
    run(results, "--html", tmp_path / "out/r.html", "--markdown", tmp_path / "out/r.md")
    assert "r.html" in capsys.readouterr().out
    return {path.suffix: path.read_text(encoding="utf-8") for path in (tmp_path / "out").iterdir()}


def test_help_imports_nothing_that_takes_long():
    heavy = "{'torch', 'transformers', 'matplotlib', 'pandas'}"
    code = "from llava.eval.pictures.report import build_parser; import sys; build_parser().format_help(); "
    code += f"print({heavy} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
    assert all(action.help for action in build_parser()._actions)


def test_a_report_is_one_page_and_one_text_of_the_same_tables(written):
    assert written.keys() == {".html", ".md"}
    for text in written.values():
        for fact in ("All benchmarks", "GQA: scores", "POPE: scores", "49.0 to 50.0", "Time", "Memory", "Environment"):
            assert fact in text
        for made in ("2026-01-02", "A GPU", "abc1234", "2.13.0", "float16"):
            assert made in text
        assert "A CPU" not in text  # it asked on the GPU
    cells = [
        row.strip("| ").split(" | ") for row in written[".md"].splitlines() if row.startswith("| cdpruner | vtn_64")
    ]
    assert cells[0] == ["cdpruner", "vtn_64", "64", "50.0", "50.0", "50.0", "50.0"]
    assert [row[2:5] for row in cells[1:3]] == [["64", "50.0", "49.0 to 50.0"]] * 2
    assert [row[-1] for row in cells[3:5]] == ["2.00"] * 2, "twice as fast"
    links = re.findall(r'(?:src|href)="([^"]*)"|url\(([^)]*)\)', written[".html"])
    assert links and all((a or b).startswith(("data:", "#")) for a, b in links)


def test_nothing_of_this_machine_is_in_a_report(written, results):
    for text in written.values():
        text = re.sub(r"data:[^\")]*", "", text)
        for private in ("jane", "home", str(results), str(results.parent), str(Path.cwd())):
            assert private not in text
        assert "RESULTS/gqa" in text  # where questions are looked for, which are not there


def test_what_times_were_not_taken_alike_is_told(results, tmp_path, put):
    header = next(results.glob("gqa/answers/**/cdpruner/*.run"))
    header.write_text(json.dumps({"environment": {"cpu": "A CPU", "gpu": "Another GPU", "threads": 8, "date": "2026"}}))
    run(results, "--html", tmp_path / "r.html", "--markdown", tmp_path / "r.md", "--samples", "0")
    text = (tmp_path / "r.md").read_text()
    assert "Not all of these times were taken alike, see hardware under environment" in text
    assert "A GPU (3 of 4 results); Another GPU (1 of 4 results)" in text


def test_results_that_were_not_profiled_say_how_times_are_had(results, tmp_path):
    for path in results.rglob("*.jsonl"):
        path.unlink()
    run(results, "--html", tmp_path / "r.html", "--markdown", tmp_path / "r.md")
    assert "--profile" in (tmp_path / "r.md").read_text()


def test_a_report_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(SystemExit, match="error: RESULTS .*nowhere: no such folder"):
        run(tmp_path / "nowhere", "--html", tmp_path / "new/r.html", "--markdown", tmp_path / "new/r.md")
    assert not list(tmp_path.rglob("r.*"))


def test_folders_are_named_and_the_rest_of_a_text_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", HOME)
    public = without_folders(RESULTS=tmp_path / "eval", DATA=tmp_path / "eval/images")
    assert public(f"cannot read {tmp_path}/eval/images/a.png") == "cannot read DATA/a.png"
    assert public(f"{tmp_path}/eval/gqa, {HOME}/m and {HOME}s") == "RESULTS/gqa, ~/m and jane.does"
    assert public(f"vtn_64_text_tower{HOME}/clip".replace("/", "-")) == "vtn_64_text_tower-~-clip"
    assert public("cannot read /srv/other place/x.json: gone") == "cannot read other place/x.json: gone"
    for text in ("and/or", "5 / 6, 1/2/3", "https://example.org/a/b", "half-home-made"):
        assert public(text) == text
