"""The papers' numbers, checked against the averages that the papers print beside them."""

from pathlib import Path
from statistics import fmean

import pytest

from llava.eval.results.collect import Group
from llava.eval.results.document import TITLES, document
from llava.eval.results.published import MEASURED_BY, find_published, published_of, published_rows
from llava.eval.results.table import Row, Table
from llava.eval.tasks import TASKS

TEN = ("vqav2", "gqa", "vizwiz", "sqa", "textvqa", "pope", "mme", "mmbench", "mmbench_cn", "mmvet")
PRINTED = {
    ("llava-v1.5-7b", "native", "FastV", 128): (58.5, 92.8),
    ("llava-v1.5-7b", "native", "PDrop", 128): (60.3, 95.0),
    ("llava-v1.5-7b", "native", "SparseVLM", 128): (61.0, 96.3),
    ("llava-v1.5-7b", "native", "PruMerge+", 128): (61.2, 96.8),
    ("llava-v1.5-7b", "native", "TRIM", 128): (60.7, 95.8),
    ("llava-v1.5-7b", "native", "VisionZip", 128): (61.6, 97.6),
    ("llava-v1.5-7b", "native", "DART", 128): (61.1, 96.9),
    ("llava-v1.5-7b", "native", "divprune", 128): (61.7, 97.5),
    ("llava-v1.5-7b", "native", "cdpruner", 128): (62.5, 99.0),
    ("llava-v1.5-7b", "native", "vispruner", 128): (62.4, 99.6),
    ("llava-v1.5-7b", "native", "FastV", 64): (46.8, 74.9),
    ("llava-v1.5-7b", "native", "PDrop", 64): (45.9, 72.9),
    ("llava-v1.5-7b", "native", "SparseVLM", 64): (55.1, 87.1),
    ("llava-v1.5-7b", "native", "PruMerge+", 64): (58.3, 92.4),
    ("llava-v1.5-7b", "native", "TRIM", 64): (58.6, 91.6),
    ("llava-v1.5-7b", "native", "VisionZip", 64): (59.5, 94.4),
    ("llava-v1.5-7b", "native", "DART", 64): (58.6, 92.6),
    ("llava-v1.5-7b", "native", "divprune", 64): (60.0, 94.7),
    ("llava-v1.5-7b", "native", "cdpruner", 64): (61.4, 97.0),
    ("llava-v1.5-7b", "native", "vispruner", 64): (60.4, 96.6),
    ("llava-v1.5-7b", "native", "PruMerge+", 32): (54.3, 86.1),
    ("llava-v1.5-7b", "native", "TRIM", 32): (55.5, 86.2),
    ("llava-v1.5-7b", "native", "VisionZip", 32): (55.8, 88.4),
    ("llava-v1.5-7b", "native", "DART", 32): (56.0, 88.6),
    ("llava-v1.5-7b", "native", "divprune", 32): (58.0, 91.3),
    ("llava-v1.5-7b", "native", "cdpruner", 32): (60.0, 94.3),
    ("llava-v1.5-7b", "native", "vispruner", 32): (57.2, 91.5),
    ("llava-v1.5-13b", "native", "VisionZip", 128): (64.1, 97.0),
    ("llava-v1.5-13b", "native", "divprune", 128): (64.2, 96.8),
    ("llava-v1.5-13b", "native", "cdpruner", 128): (64.8, 98.0),
    ("llava-v1.5-13b", "native", "VisionZip", 64): (61.9, 93.8),
    ("llava-v1.5-13b", "native", "divprune", 64): (62.7, 94.1),
    ("llava-v1.5-13b", "native", "cdpruner", 64): (64.0, 96.6),
    ("llava-v1.5-13b", "native", "VisionZip", 32): (57.8, 87.6),
    ("llava-v1.5-13b", "native", "divprune", 32): (60.4, 90.8),
    ("llava-v1.5-13b", "native", "cdpruner", 32): (62.4, 93.8),
    ("llava-v1.6-vicuna-7b", "fixed", "VisionZip", 128): (64.9, 99.5),
    ("llava-v1.6-vicuna-7b", "fixed", "divprune", 128): (64.3, 98.5),
    ("llava-v1.6-vicuna-7b", "fixed", "cdpruner", 128): (65.1, 100.1),
    ("llava-v1.6-vicuna-7b", "fixed", "VisionZip", 64): (62.4, 95.7),
    ("llava-v1.6-vicuna-7b", "fixed", "divprune", 64): (62.8, 96.0),
    ("llava-v1.6-vicuna-7b", "fixed", "cdpruner", 64): (64.0, 98.0),
    ("llava-v1.6-vicuna-7b", "fixed", "VisionZip", 32): (58.8, 90.0),
    ("llava-v1.6-vicuna-7b", "fixed", "divprune", 32): (60.8, 92.9),
    ("llava-v1.6-vicuna-7b", "fixed", "cdpruner", 32): (62.8, 96.0),
    ("llava-v1.6-vicuna-13b", "fixed", "cdpruner", 128): (67.8, 99.9),
    ("llava-v1.6-vicuna-13b", "fixed", "cdpruner", 64): (66.1, 97.1),
    ("llava-v1.6-vicuna-13b", "fixed", "cdpruner", 32): (65.0, 95.2),
    ("llava-v1.6-vicuna-13b", "fixed", "divprune", 128): (66.4, 97.3),
    ("llava-v1.6-vicuna-13b", "fixed", "divprune", 64): (65.1, 95.4),
    ("llava-v1.6-vicuna-13b", "fixed", "divprune", 32): (63.4, 92.9),
}
"""Mean over ten benchmarks, and mean percentage of the paper's own unpruned row."""


@pytest.mark.parametrize("place", PRINTED, ids=lambda place: "-".join(map(str, place)))
def test_the_averages_that_the_papers_print_follow_from_their_rows(place):
    checkpoint, layout, method, tokens = place
    (row,) = [
        row
        for row in published_of(Group(checkpoint, layout, ""))
        if (row.method, row.visual_token_num) == (method, tokens)
    ]
    table = Table(Group(checkpoint, layout, ""), TEN, ())
    entries = table.entries(Row(method, f"vtn_{tokens}", {}, row))
    assert (entries["average"][1], entries["relative"][1]) == pytest.approx(PRINTED[place], abs=0.06)


def test_every_row_of_ten_benchmarks_is_so_checked():
    full = [row for row in published_rows() if set(row.values) == set(TEN) and row.visual_token_num]
    assert {(row.checkpoint, row.layout, row.method, row.visual_token_num) for row in full} == set(PRINTED)


def test_numbers_known_from_memory_are_left_out():
    assert {row.visual_token_num for row in published_rows()} == {None, 0, 16, 32, 64, 128}


def test_every_number_is_of_a_known_benchmark_and_has_a_source():
    for row in published_rows():
        assert {*row.values, *row.over} <= {*TASKS, *TITLES} and row.source
        for benchmark, value in row.values.items():
            assert 0 < value / (20 if benchmark.startswith("mme") else 1) < 100, row
        assert (row.average is None) or 50 < row.average <= 100


@pytest.mark.parametrize("name", ["cen-prune", "dcp-prune"])
def test_a_printed_mean_over_benchmarks_that_could_all_be_read_follows_from_them(name):
    rows = [row for row in published_rows() if row.protocol.name == name and row.values]
    checked = 0
    for row in rows:
        whole = [other for other in rows if (other.checkpoint, other.method) == (row.checkpoint, "none")]
        if row.over and set(row.values) == set(row.over):
            mean = 100 * fmean(row.values[each] / whole[0].values[each] for each in row.over)
            assert mean == pytest.approx(row.average, abs=0.11), row
            checked += 1
    assert checked >= 11


def test_what_was_measured_in_another_way_stands_beside_nothing_measured_here():
    group = Group("llava-v1.5-7b", "native", "")
    assert {row.protocol.evaluation for row in published_of(group)} == {MEASURED_BY}
    elsewhere = [row for row in published_rows() if row.protocol.evaluation != MEASURED_BY]
    assert {row.protocol.name for row in elsewhere} == {"cen-prune", "dcp-prune"}
    assert find_published(group, "mmtok", "vtn_64") is None and find_published(group, "scope", "vtn_64") is None
    assert find_published(group, "cdpruner", "vtn_64").protocol.name == "cdpruner"
    assert published_of(Group("LLaVA-Video-7B", "native", "")) == []


def test_a_row_says_whose_claim_it_is():
    claims = {
        (row.protocol.name, row.method, row.centered): row.claim for row in published_rows() if row.method != "none"
    }
    own, others = "its authors' own claim", "third-party run, by Cen-Prune's authors"
    assert claims["cdpruner", "cdpruner", False] == claims["cen-prune", "cdpruner", True] == own
    assert claims["cen-prune", "cdpruner", False] == claims["cen-prune", "divprune", False] == others
    assert {claim for (name, _, centered), claim in claims.items() if name == "cen-prune" and centered} == {own}
    assert claims["cdpruner", "divprune", False] == "third-party run, by CDPruner's authors"


def test_the_one_protocol_puts_divprune_before_cdpruner_on_qwen_and_video_and_behind_it_on_llava():
    """Read off the paper, as the README's advice is."""
    means = {
        (row.checkpoint, row.method, row.visual_token_num or row.keep_ratio): row.average
        for row in published_rows()
        if row.protocol.name == "cen-prune" and row.centered
    }
    for checkpoint, budgets in (("Qwen2.5-VL-7B", (0.2, 0.1, 0.05)), ("LLaVA-Video-7B", (64, 32, 16))):
        assert all(means[checkpoint, "divprune", each] > means[checkpoint, "cdpruner", each] for each in budgets)
    for checkpoint, budgets in (("llava-v1.5-7b", (128, 64)), ("llava-v1.6-vicuna-7b", (128, 64, 32))):
        assert all(means[checkpoint, "cdpruner", each] > means[checkpoint, "divprune", each] for each in budgets)


def test_the_document_is_that_of_the_numbers():
    path = Path(__file__).parents[3] / "docs/published.md"
    assert path.read_text(encoding="utf-8") == document(), "python -m llava.eval published --output docs/published.md"


def test_the_document_names_the_benchmarks_of_every_mean():
    for section in document().split("\n### ")[1:]:
        assert ("mean, as printed" in section) == ("The printed means are over" in section)
        assert ("| mean of " in section) == ("computed here, is over" in section)
    cen = document().split("## Cen-Prune")[1].split("### llava-v1.5-7b")[1].split("###")[0]
    row = next(line for line in cen.splitlines() if line.startswith("| cdpruner, centered | 32 |"))
    assert row == "| cdpruner, centered | 32 | 57.5 |  | 1372 | 86.1 |  |  | 55.2 |  |  |  |  |  | 94.7 | " + (
        "its authors' own claim |"
    )


def test_a_measured_row_is_compared_with_its_own_method_budget_and_layout():
    llava = Group("llava-v1.5-7b", "native", "")
    assert find_published(llava, "cdpruner", "vtn_64").values["pope"] == 87.5
    assert find_published(llava, "vispruner", "vtn_128").values["mme"] == 1461.4
    assert find_published(llava, "none", "full").values["sqa"] == 66.8
    assert find_published(Group("llava-v1.6-vicuna-7b", "fixed", ""), "cdpruner", "vtn_64").values["vqav2"] == 78.4
    for group, pruner, label in [
        (llava, "vispruner", "vtn_64_r0.75"),
        (llava, "cdpruner", "ratio_0.25"),
        (llava, "cdpruner", "vtn_192"),
        (llava, "random", "vtn_64"),
        (Group("llava-v1.6-vicuna-7b", "native", ""), "cdpruner", "vtn_64"),
        (Group("llava-v1.5-7b", "native", "dtypebfloat16"), "cdpruner", "vtn_64"),
    ]:
        assert find_published(group, pruner, label) is None


def test_without_tokens_every_pruner_is_the_same_floor():
    group = Group("llava-v1.5-7b", "native", "")
    rows = [find_published(group, pruner, "vtn_0") for pruner in ("random", "cdpruner")]
    assert rows[0] == rows[1] and rows[0].values["pope"] == 47.2
