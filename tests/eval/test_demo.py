import json
import re
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from llava.command import run_program
from llava.eval import demo
from llava.eval.demo import Drawn, Row, build_parser, measure_and_draw, run_demo, settings, summarize, table
from llava.eval.results.demo_table import paired_table, row_line
from llava.pruners import PRUNERS, name_of
from llava.records import InputError


def test_every_pruner_runs_at_a_quarter_an_eighth_and_a_sixteenth():
    rows = settings(144, random_seeds=3)
    assert (rows[0].name, rows[0].visual_token_num, rows[0].pruners) == ("none", 144, (None,))
    for name in ("random", "uniform", "cdpruner", "divprune", "vispruner", "mfpruner"):
        assert [row.visual_token_num for row in rows if row.name == name] == [36, 18, 9]
    assert all(name_of(pruner) == row.name for row in rows for pruner in row.pruners)


def test_every_pruner_runs_with_all_positions_asked_for_and_no_pruner_once():
    compact, both = settings(144, 3), settings(144, 3, ("compact", "original"))
    assert both[: len(compact)] == compact
    assert both[len(compact) :] == [replace(row, positions="original") for row in compact[1:]]


def test_pruners_may_be_named_with_options_and_all_of_them_asked_for():
    rows = settings(144, 2, ("compact", "original"), "all,-random,vispruner:important_ratio=0.75")
    names = list(dict.fromkeys(row.name for row in rows))
    assert names[0] == "none" and names[-1] == "vispruner, important_ratio=0.75"
    assert [name.split(", ")[0] for name in names[1:-1]] == [name for name in PRUNERS if name != "random"]
    fastv = [row for row in rows if row.name == "fastv, prune_layer=2"]
    assert [(row.positions, row.visual_token_num) for row in fastv] == [(None, 36), (None, 18), (None, 9)]
    assert all(options.prune_layer == 2 and options.pruner in row.pruners for row in fastv for options in row.options)
    assert {row.positions for row in rows if row.name == "trim"} == {"compact", "original"}
    assert rows[-1].pruners[0].important_ratio == 0.75 and rows[-1].options[0].positions == "original"


@pytest.mark.parametrize(
    ("pruners", "error"),
    [
        ("sharpest", "unknown pruner 'sharpest'"),
        ("vispruner:important_ratio=7", "important_ratio must be"),
        ("trim:prune_layer=1", "--pruners: trim, prune_layer=1, 36 tokens: trim merges tokens"),
        ("trim:positions=original", "--positions says where kept tokens stand"),
    ],
)
def test_pruners_that_cannot_run_are_refused(pruners, error):
    with pytest.raises(InputError, match=error):
        settings(144, 1, pruners=pruners)


def test_random_is_averaged_over_seeds():
    random = next(row for row in settings(144, random_seeds=3) if row.name == "random")
    assert [pruner.seed for pruner in random.pruners] == [0, 1, 2]


@pytest.fixture
def benchmark_of_four():
    questions = [{"image": image} for image in "abcd"]
    labels = [{"category": category} for category in ("color", "color", "count", "count")]
    return Drawn(questions, labels, Path())


def test_a_row_has_accuracy_error_types_and_what_it_gains_over_random(benchmark_of_four):
    setting = Row("divprune", 9, (None,))
    row = summarize(setting, [1.0, 0.0, 1.0, 1.0], 9.0, [1.0, 0.0, 0.5, 0.5], benchmark_of_four)
    assert (row["pruner"], row["visual_token_num"], row["visual_tokens_kept"]) == ("divprune", 9, 9.0)
    assert (row["accuracy"], row["questions"], row["by_type"]) == (0.75, 4, {"color": 0.5, "count": 1.0})
    assert row["stderr"] == pytest.approx(0.5 / 4**0.5)
    assert row["above_random"] == 0.25 and row["above_random_stderr"] == pytest.approx((1 / 12) ** 0.5 / 2)


def test_a_row_counts_the_questions_that_tell_it_from_no_pruner_by_hand(benchmark_of_four):
    unpruned = [1.0, 1.0, 0.0, 1.0]
    row = summarize(Row("divprune", 9, (None,)), [1.0, 0.0, 1.0, 0.0], 9.0, None, benchmark_of_four, unpruned)
    assert (row["only_unpruned"], row["only_pruned"], row["p_value"]) == (2, 1, 1.0)
    seeds = summarize(Row("random", 9, (None, None)), [0.5, 0.0, 1.0, 0.0], 9.0, None, benchmark_of_four, unpruned)
    assert "p_value" not in seeds
    lines = paired_table([row | {"positions": "compact"}, seeds | {"positions": "compact"}]).splitlines()
    assert lines[1].split() == ["tokens", "kept", "9"] and lines[2].split() == ["divprune", "-2", "+1,", "p=1.000"]
    assert len(lines) == 3


def test_the_random_row_is_not_compared_with_itself(benchmark_of_four):
    assert "above_random" not in summarize(Row("random", 9, ()), [1.0, 0, 0, 0], 9.0, None, benchmark_of_four)


def test_the_table_has_pruners_down_and_budgets_across():
    rows = [
        {"pruner": "none", "visual_token_num": 144, "positions": None, "accuracy": 0.9, "stderr": 0.01},
        {"pruner": "random", "visual_token_num": 9, "positions": "compact", "accuracy": 0.25, "stderr": 0.02},
        {"pruner": "random", "visual_token_num": 9, "positions": "original", "accuracy": 0.5, "stderr": 0.03},
    ]
    _, header, none, random, original = table(rows).splitlines()
    assert header.split() == ["tokens", "kept", "144", "9"]
    assert none.split() == ["none", "90.0", "+-", "1.0"] and random.split() == ["random", "25.0", "+-", "2.0"]
    assert original.split() == ["random,", "original", "50.0", "+-", "3.0"]
    assert none.index("90.0") < random.index("25.0")


def test_questions_about_one_scene_alone_are_refused_before_they_are_asked(tmp_path):
    args = Namespace(output_dir=tmp_path, num_questions=2, seed=0)
    with pytest.raises(InputError, match="--num-questions 2: all about one scene"):
        measure_and_draw(None, args, tmp_path / "shapes_results.json")


@pytest.mark.slow
def test_the_demo_writes_results_and_pictures(tmp_path, capsys):
    words = ["--output-dir", str(tmp_path), "--num-questions", "10", "--random-seeds", "1", "--batch_size", "5"]
    words += ["--positions", "compact", "original"]
    run_program(build_parser(), run_demo, words)
    results = json.loads((tmp_path / "shapes_results.json").read_text())
    assert len(results["rows"]) == 37
    for row in results["rows"]:
        assert 0 <= row["accuracy"] <= 1 and row["questions"] == 10
        assert row["visual_tokens_kept"] == row["visual_token_num"]
    answers = [json.loads(file.open().readline()) for file in tmp_path.glob("answers/cdpruner/vtn_9*_0.jsonl")]
    assert {answer["metadata"]["run"]["positions"] for answer in answers} == {"compact", "original"}
    assert {"versions", "commit", "cpu", "date", "dtype", "seed"} <= set(results["environment"])
    assert "cdpruner" in capsys.readouterr().out
    for picture in ("shapes_accuracy.png", "shapes_selection.png"):
        assert (tmp_path / picture).stat().st_size > 10_000


def test_rows_come_as_they_finish_and_a_log_has_one_bar_for_loading_and_no_blank_lines(tmp_path, capfd):
    words = ["--output-dir", str(tmp_path), "--num-questions", "4", "--pruners", "divprune", "--batch_size", "4"]
    run_program(build_parser(), run_demo, [*words, "--device", "cpu"])
    output, log = capfd.readouterr()
    rows, whole, *_ = output.split("\n\n")
    results = json.loads((tmp_path / "shapes_results.json").read_text())["rows"]
    assert rows.splitlines() == [row_line(row) for row in results] and len(results) == 4
    assert re.match(r"none, 144 tokens: \d+\.\d \+- \d+\.\d %$", rows.splitlines()[0])
    assert whole == table(results)
    assert log.count("Loading weights:   0%") == 1 and "demo:" not in log and "\x1b[A" not in log
    assert all(line.strip("\r ") for line in log.removesuffix("\n").split("\n"))


def test_each_row_is_printed_before_the_next_setting_is_asked(monkeypatch, capsys, benchmark_of_four):
    printed = []

    def measure(setting, loaded, benchmark, args):
        printed.append(capsys.readouterr().out)
        return [1.0, 0.0, 1.0, 1.0], float(setting.visual_token_num)

    monkeypatch.setattr(demo, "measure", measure)
    tower = SimpleNamespace(num_patches=144)
    loaded = SimpleNamespace(model=SimpleNamespace(get_vision_tower=lambda: tower))
    args = Namespace(random_seeds=1, positions=["compact"], pruners="divprune")
    rows = demo.measure_all(loaded, benchmark_of_four, args)
    assert printed == ["", *(f"{row_line(row)}\n" for row in rows[:-1])]
