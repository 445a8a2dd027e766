"""What is told of budgets that follow the picture, and which rows stand beside theirs."""

import csv
import io
import json
from pathlib import Path

import pytest

from llava.eval.results import beside
from llava.eval.results.budgets import Kept, layers_of, mean_over_layers, quantile
from llava.eval.results.collect import Group, Measurement
from llava.eval.results.formats import FORMATS, notes
from llava.eval.results.grids import line
from llava.eval.results.setting import Setting
from llava.eval.results.table import build_tables
from llava.shapes import checkpoint_path

LLAVA = Group("llava-v1.5-7b", "native", "")
SPECTRAL = "vtn_64_budgetspectral_erank_ref71.5"


def image(kept, tiles=1):
    return {"k": kept // tiles, "tiles": tiles, "kept": kept, "tokens": 576 * tiles}


def result(place, value=80.0, column="pope", kept=None):
    pruner, _, label = place.partition("/")
    setting = Setting(pruner, label, "native", "", 0)
    return Measurement(LLAVA, setting, column, value, 100, None, 0, 64.0, Path(column, place), kept)


def test_the_mean_is_over_tiles_and_quantiles_over_images():
    metadata = [{"budgets": [image(40)]}, {"budgets": [image(400, 5), image(60)]}, {"visual_tokens": 9}]
    kept = Kept.of(metadata)
    assert kept.mean == pytest.approx(500 / 7) and kept.quantiles == (40, 60, 80) and kept.over_layers is None
    assert Kept.of([{"visual_tokens": 64}]) is None and Kept.of([]) is None


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.05, 1), (0.06, 2), (0.5, 10), (0.95, 19), (1.0, 20)])
def test_a_quantile_is_one_of_the_values(share, expected):
    assert quantile(range(20, 0, -1), share) == expected


@pytest.mark.parametrize("config", [{"num_hidden_layers": 32}, {"text_config": {"num_hidden_layers": 32}}])
def test_the_mean_over_layers_counts_those_that_read_all_tokens(put, tmp_path, config):
    put("llava/config.json", config)
    run = {"prune_layer": 2, "model_path": str(tmp_path / "llava")}
    said = {"visual_tokens": 64, "tokens_before": 576, "run": run}
    assert layers_of(run["model_path"]) == 32
    assert mean_over_layers(said, 32) == pytest.approx((2 * 576 + 30 * 64) / 32) == Kept.of([said, said]).over_layers
    assert mean_over_layers(said | {"run": {}}, 32) is None and mean_over_layers(said, None) is None
    assert mean_over_layers({"visual_tokens": 64, "run": run}, 32) is None
    assert Kept.of([said | {"run": run | {"model_path": "some/where"}}]) is None


def test_layers_may_be_those_of_the_class_and_a_config_may_say_nothing(put, tmp_path):
    put("hosted/config.json", {"model_type": "llava", "text_config": {"model_type": "llama"}})
    assert layers_of(str(tmp_path / "hosted")) == 32
    for content in ({}, {"text_config": {}}, []):
        put("odd/config.json", content)
        assert layers_of(str(tmp_path / "odd")) is None
    assert [layers_of(path) for path in ("some/where", "", "no name at all")] == [None] * 3
    assert layers_of(checkpoint_path()) == 4


def test_the_mean_over_layers_stands_beside_the_count_behind_the_layer():
    (table,) = build_tables([result("fastv/vtn_64_prune_layer2", kept=Kept(None, None, 96.0)), result("none/full")])
    texts = {row.pruner: line(table, row)[2] for row in table.rows}
    assert texts == {"fastv": "64 (96.0 over layers)", "none": "64"}
    (row,) = [each for each in csv.DictReader(io.StringIO(FORMATS["csv"]([table]))) if each["pruner"] == "fastv"]
    assert (row["tokens_over_layers"], row["tokens_per_tile"]) == ("96.0", "")


MOVING = Kept(61.4, (40.0, 60.0, 90.0), None)
BESIDE = ["divprune/vtn_61", "random/vtn_61", "uniform/vtn_61"]


def test_a_budget_that_follows_the_picture_stands_beside_fixed_ones_of_as_many_tokens():
    others = ["divprune/vtn_64", "cdpruner/vtn_61", "random/vtn_64", "divprune/vtn_61_budget_scopetile"]
    (table,) = build_tables([result(f"divprune/{SPECTRAL}", 82.0, kept=MOVING), *map(result, [*BESIDE, *others])])
    rows = [row[:5] for row in beside.budget_lines(table)]
    assert rows == [
        ["divprune", SPECTRAL, "POPE", "82.0", "61.4"],
        *([place.split("/")[0], "vtn_61", "POPE", "80.0", "61"] for place in BESIDE),
    ]
    assert beside.budget_lines(table)[0][5:] == ["40", "60", "90"] and beside.budget_notes(table) == []
    markdown, latex, page = (FORMATS[name]([table]) for name in ("markdown", "latex", "json"))
    assert "| divprune | vtn\\_64\\_" not in markdown and "| 61.4 | 40 | 60 | 90 |" in markdown
    assert "82.0 & 61.4 & 40 & 60 & 90" in latex and latex.count(r"\begin{tabular}") == 2
    (record,) = json.loads(page)["tables"]
    assert record["budgets"] == [
        {"pruner": "divprune", "setting": SPECTRAL, "benchmark": "pope", "mean": 61.4}
        | {"beside": {"divprune": "vtn_61", "random": "vtn_61", "uniform": "vtn_61"}}
    ]


@pytest.mark.parametrize("missing", BESIDE)
def test_what_is_missing_beside_it_is_named(missing):
    (table,) = build_tables(
        [result(f"divprune/{SPECTRAL}", kept=MOVING), *(result(each) for each in BESIDE if each != missing)]
    )
    (note,) = beside.budget_notes(table)
    pruner = missing.split("/")[0]
    assert (
        note in notes(table)
        and f"61.4 tokens per tile on average; not measured with a fixed budget of 61: {pruner}" in note
    )
    assert ("no gain is claimed without that row" in note) == (pruner == "divprune")


def test_a_budget_near_enough_will_do_and_the_nearest_is_taken():
    (table,) = build_tables(
        [result(f"divprune/{SPECTRAL}", kept=MOVING), *map(result, ["divprune/vtn_60", "divprune/vtn_62", *BESIDE[1:]])]
    )
    (row, _), *_ = beside.moving(table)
    assert beside.companions(table, row, "pope")["divprune"].label == "vtn_62"


def test_rows_beside_it_are_applied_alike():
    moving = "vtn_64_budgetmass_mass0.8_positionsoriginal_r0.75"
    fitting = [
        "vispruner/vtn_61_positionsoriginal_r0.75",
        *(f"{name}/vtn_61_positionsoriginal" for name in beside.FLOORS),
    ]
    foreign = [
        "vispruner/vtn_61",
        "vispruner/vtn_61_r0.75",
        "random/vtn_61",
        "uniform/vtn_61",
        "random/vtn_61_budgetmass",
    ]
    (table,) = build_tables([result(f"vispruner/{moving}", kept=MOVING), *map(result, [*fitting, *foreign])])
    row = next(row for row, _ in beside.moving(table))
    found = beside.companions(table, row, "pope")
    assert [f"{name}/{other.label}" for name, other in found.items()] == fitting


def test_each_benchmark_has_a_mean_and_rows_beside_it_of_its_own():
    measured = [result(f"uniform/{SPECTRAL}", kept=MOVING), result("uniform/vtn_61")]
    measured += [result(f"uniform/{SPECTRAL}", column="gqa", kept=Kept(70.0, (50.0, 70.0, 80.0), None))]
    measured += [result("random/vtn_70", column="gqa")]
    (table,) = build_tables(measured)
    assert {(note.split(":")[0], note.split(": ")[2]) for note in beside.budget_notes(table)} == {
        (f"uniform, {SPECTRAL}, POPE", "random."),
        (f"uniform, {SPECTRAL}, GQA", "uniform; no gain is claimed without that row."),
    }
    (row,) = [row for row in table.rows if row.label == SPECTRAL]
    assert row.kept.mean == pytest.approx((61.4 + 70) / 2)


def test_it_is_said_in_one_line():
    assert str(MOVING) == "tokens per tile: 61.4 on average; 5, 50 and 95 % of images: 40.0, 60.0, 90.0"
    assert str(Kept(None, None, 96.0)) == "96.0 visual tokens on average over layers"


def test_seeds_are_averaged():
    first, second = Kept(60.0, (40.0, 60.0, 80.0), None), Kept(62.0, (42.0, 60.0, 84.0), None)
    assert Kept.mean_of([first, None, second]) == Kept(61.0, (41.0, 60.0, 82.0), None)
    assert Kept.mean_of([None]) is None
