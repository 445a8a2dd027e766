"""The table of all results: that it is what the files beside it say, and what a line holds."""

import csv
import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "results"


@pytest.fixture(scope="module")
def program():
    spec = importlib.util.spec_from_file_location("flat_results", ROOT / "scripts" / "flat_results.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def written():
    with (FOLDER / "results.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_is_what_the_results_say(program):
    assert (FOLDER / "results.csv").read_text(encoding="utf-8") == program.table(FOLDER), "run: make results"


def test_every_file_is_in_it_with_where_it_was_measured(written):
    assert {line["source"] for line in written} == {path.name for path in FOLDER.glob("*.json")}
    for line in written:
        assert all(line[name] for name in ("suite", "metric", "value", "hardware", "versions", "commit")), line


def test_every_row_of_methods_is_in_it(written):
    document = json.loads((FOLDER / "shapes_methods_cpu.json").read_text(encoding="utf-8"))
    rows = [row for page in document["tables"] for row in page["rows"]]
    lines = [line for line in written if line["source"] == "shapes_methods_cpu.json" and line["metric"] == "accuracy"]
    assert [line["pruner"] for line in lines] == [row["pruner"] for row in rows]
    for line, row in zip(lines, rows, strict=True):
        assert float(line["value"]) == pytest.approx(row["numbers"]["shapes"]["value"], abs=1e-3)
        assert float(line["low"]) <= float(line["value"]) <= float(line["high"])
        assert line["n"] == "1000"


def test_a_share_is_in_percent_with_its_interval(program, tmp_path):
    row = {"pruner": "divprune", "visual_token_num": 36, "accuracy": 0.5, "stderr": 0.01, "questions": 100}
    run = {"versions": {"torch": "2.13"}, "commit": "abc", "cpu": "A", "threads": 2, "date": "2026-11-28T01:02:03"}
    (tmp_path / "one.json").write_text(json.dumps({"rows": [row], "environment": run}))
    program.write(program.build_parser().parse_args(["--results-dir", str(tmp_path)]))
    (line,) = csv.DictReader((tmp_path / "results.csv").open(encoding="utf-8"))
    assert (line["value"], line["low"], line["high"], line["n"]) == ("50", "48.04", "51.96", "100")
    assert (line["pruner"], line["budget"], line["model"]) == ("divprune", "36", "llava-shapes")
    assert (line["hardware"], line["versions"], line["date"]) == ("A, threads: 2", "torch 2.13", "2026-11-28")


def test_a_time_says_whether_it_is_noisy_and_a_check_is_a_number(program, tmp_path):
    rows = [{"suite": "select", "method": "mfpruner", "T": 64, "n": 9, "noisy": True, "wall_ms": 1.25, "equal": True}]
    run = {"versions": {"torch": "2.13"}, "commit": "abc", "card": {"name": "a card"}}
    (tmp_path / "one.json").write_text(json.dumps({"rows": rows, "meta": run}))
    program.write(program.build_parser().parse_args(["--results-dir", str(tmp_path)]))
    wall, equal = csv.DictReader((tmp_path / "results.csv").open(encoding="utf-8"))
    assert (wall["metric"], wall["value"], wall["noisy"], wall["hardware"]) == ("wall_ms", "1.25", "yes", "a card")
    assert (equal["metric"], equal["value"], equal["budget"]) == ("equal", "1", "64")
