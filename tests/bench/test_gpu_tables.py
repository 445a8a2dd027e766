"""Goals, tables and picture of a GPU run, from rows that no GPU gave."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from llava.bench.gpu import __main__ as program
from llava.bench.gpu import figure, goals, tables
from llava.command import run_program
from llava.records import InputError

DOCS = Path(__file__).parents[2] / "docs"
RUN, EARLIER = DOCS / "results" / "gpu.json", DOCS / "results" / "gpu_21d7e70.json"


def part(*rows, status="done"):
    return {"status": status, "reason": None, "seconds": 1.0, "rows": list(rows), "notes": []}


def serving(method, batch, speed, question="known"):
    row = {"method": method, "question": question, "B": batch, "visual": 576 if method == "none" else 64}
    return row | ({"out_of_memory": True} if speed is None else {"images_per_second": speed, "noisy": False})


def side(method, batch, graphs, first=1.0, share=0.04, question="-"):
    row = {"method": method, "question": question, "B": batch, "graphs": graphs, "noisy": batch == 16}
    return row | {"first_token_of_none": first} | ({} if method in ("none", "uniform") else {"share_of_prefill": share})


def prefill(batch, visual, ms):
    return {"suite": "prefill", "B": batch, "visual": visual, "wall_ms": ms, "gpu_ms": None}


@pytest.fixture
def results():
    meta = {"card": {"name": "A card", "memory_gb": 79.6, "driver": "580.1"}, "commit": "abc1234", "seconds": 321.0}
    meta |= {"versions": {"torch": "2.11", "transformers": "5.17", "triton": None, "python": "3.12"}}
    speeds = [serving("none", 64, 40), serving("cdpruner", 64, 90), serving("none", 128, None)]
    speeds += [serving("cdpruner", 128, 110), serving("cdpruner", 128, 99, "new"), serving("divprune", 128, 80)]
    sides = [side(*way) for way in (("none", 1, False), ("cdpruner", 1, False, 1.3), ("uniform", 16, False))]
    sides += [side("cdpruner", 16, False, share=0.2)]
    times = [prefill(1, 576, 23.0), prefill(1, 64, 22.0), prefill(16, 576, 300.0), prefill(16, 64, 75.0)]
    parts = {"golden": part({"method": "divprune", "file": "a", "equal": True}), "saturation": part(*speeds)}
    parts |= {"image_side": part(*sides), "stages": part(*times), "select": part(status="failed")}
    parts["select"]["reason"], parts["image_side"]["notes"] = "ended after 90 s", ["no graphs"]
    return {"meta": meta | {"date": "2026-12-01T01:02:03"}, "parts": parts, "goals": goals.reached(parts)}


def values(rows, goal):
    return {(row["method"], row["question"]): (row["value"], row["met"]) for row in rows if row["goal"] == goal.about}


def test_serving_is_compared_at_the_best_batch_of_each_side(results):
    assert values(results["goals"], goals.SERVING) == {
        ("cdpruner", "known"): (110 / 40, True),
        ("cdpruner", "new"): (99 / 40, False),
        ("divprune", "known"): (2.0, False),
    }


def test_the_first_token_counts_with_graphs_on_alone(results):
    assert values(results["goals"], goals.FIRST_TOKEN) == {("all", "-"): (None, None)}
    results["parts"]["image_side"]["rows"] += [side("cdpruner", 1, True, 1.05), side("mfpruner", 1, True, 1.06)]
    found = values(goals.reached(results["parts"]), goals.FIRST_TOKEN)
    assert found == {("cdpruner", "-"): (1.05, True), ("mfpruner", "-"): (1.06, False)}


def test_the_share_is_that_of_sixteen_prompts_with_graphs_where_there_are_any(results):
    assert values(results["goals"], goals.SHARE) == {("cdpruner", "-"): (0.2, False)}
    results["parts"]["image_side"]["rows"].append(side("cdpruner", 16, True, share=0.09))
    assert values(goals.reached(results["parts"]), goals.SHARE) == {("cdpruner", "-"): (0.09, True)}


def test_selections_count_all_or_not(results):
    assert values(results["goals"], goals.GOLDEN) == {("all", "-"): (1, True)}
    results["parts"]["golden"]["rows"].append({"method": "cdpruner", "file": "b", "equal": False})
    assert values(goals.reached(results["parts"]), goals.GOLDEN) == {("all", "-"): (0.5, False)}


def test_what_was_not_measured_is_no_goal_that_was_missed():
    assert [(row["value"], row["met"]) for row in goals.reached({})] == [(None, None)] * 4
    assert all(line.endswith("not measured on a GPU") for line in tables.plain(goals.reached({})))


def blocks(document):
    return dict(re.findall(r"<!-- gpu: ([\w ]+) -->\n(.*?)<!-- /gpu -->", document, re.DOTALL))


def empty(*names):
    return "# Head\n" + "".join(f"\n<!-- gpu: {name} -->\nold\n<!-- /gpu -->\n" for name in names) + "tail\n"


def test_a_document_gets_the_tables_of_a_run_and_keeps_the_rest(results):
    document = tables.fill(empty(*tables.TABLES), results)
    assert document.startswith("# Head\n") and document.endswith("tail\n") and "\nold\n" not in document
    assert tables.fill(document, results) == document
    found = blocks(document)
    assert (
        "A card, 79.6 GiB, driver 580.1, torch 2.11, Transformers 5.17, Python 3.12; commit `abc1234`" in found["run"]
    )
    assert "| select | failed | 1 | 0 | ended after 90 s |" in found["run"] and "no graphs" in found["run"]
    assert "| cdpruner | known | 128 | 64 | 110.0 |" in found["saturation"]
    assert "| none | known | 128 | 576 |  | yes |" in found["saturation"]
    assert found["saturation"].count("\n") == 2 + 6
    assert "| cdpruner | - | 16 | no | 20.0% | 1.00 | noisy |" in found["image side"]
    assert "| 16 | 64 | 75.0 |" in found["prefill"] and "GPU ms" not in found["prefill"]
    assert found["vision"] == found["selection"] == tables.EMPTY
    assert "2026-12-01" in found["pays"] and tables.PICTURE in found["pays"]
    assert "| not measured on a GPU |" in found["goals"] and "| 2.750 | at least 2.5 | yes |" in found["goals"]


def test_a_table_that_does_not_exist_is_refused(results):
    with pytest.raises(InputError, match="gpu: speed -->: no such table; there are run"):
        tables.fill(empty("speed"), results)


def test_the_command_makes_the_tables_and_the_picture_beside_the_document(results, tmp_path):
    (tmp_path / "gpu.json").write_text(json.dumps(results))
    (tmp_path / "page.md").write_text(empty("run", "pays"))
    words = ["--tables", str(tmp_path / "gpu.json"), "--document", str(tmp_path / "page.md")]
    run_program(program.build_parser(), program.gpu, words)
    assert (tmp_path / "page.md").read_text() == tables.fill(empty("run", "pays"), results)
    assert (tmp_path / tables.PICTURE).read_text() == figure.svg(figure.cases(results))


def test_the_bars_are_gains_of_time_and_of_speed(results):
    bars = {bar.label: bar.gain for bar in figure.cases(results)}
    assert bars == pytest.approx(
        {
            "LLaVA-1.5, 1 prompt, 576 to 64 tokens": 23 / 22,
            "LLaVA-1.5, 16 prompts, 576 to 64 tokens": 4.0,
            "LLaVA-1.5, 64 prompts at once, to 64 tokens": 90 / 40,
        }
    )


def test_the_picture_is_drawn_to_scale_and_holds_its_text():
    bars = [figure.Case("A & B", "first", 10, 5), figure.Case("A & B", "second", 2, 2.1, more_is_better=True)]
    root = ElementTree.fromstring(figure.svg([*bars, figure.Case("other", "third", 30, 10)]))
    tag = "{http://www.w3.org/2000/svg}"
    drawn = [(float(bar.get("width")), bar.get("fill")) for bar in root.iter(f"{tag}rect")][1:]
    one = drawn[0][0] / 2
    assert [width for width, _ in drawn] == pytest.approx([2 * one, 1.05 * one, 3 * one], abs=0.2)
    assert [colour for _, colour in drawn] == [figure.GAIN, figure.NO_GAIN, figure.GAIN]
    assert float(root.find(f"{tag}line").get("x1")) == pytest.approx(figure.LEFT + one, abs=0.2)
    texts = [text.text for text in root.iter(f"{tag}text")]
    assert texts.count("A & B") == 1 and "2.0 times: 10 to 5.0" in texts and "no gain" in texts
    assert max(float(each.get("y")) for each in root.iter(f"{tag}text")) < int(root.get("height"))


def test_the_documents_tables_are_those_of_the_committed_run():
    """Where no run is committed, every table says that nothing was measured; the picture is an earlier run's."""
    document = (DOCS / "performance.md").read_text()
    results = json.loads((RUN if RUN.is_file() else EARLIER).read_text())
    found = blocks(document)
    assert set(found) == set(tables.TABLES)
    assert tables.fill(document, results) == document, f"python -m llava.bench.gpu --tables docs/results/{RUN.name}"
    assert (DOCS / tables.PICTURE).read_text() == figure.svg(figure.cases(results))
    unmeasured = [name for name, content in found.items() if content == tables.EMPTY]
    expected = [] if RUN.is_file() else [name for name in found if name != "pays"]
    assert unmeasured == expected, f"{RUN}: {'there' if RUN.is_file() else 'not there'}"
