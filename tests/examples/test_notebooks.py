"""The notebooks run, and what they show is what they print now."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = sorted((REPOSITORY / "examples").glob("*.ipynb"))
LARGEST = 400 * 1024
FEW = 3
"""By how much a count of answers may differ: another build of torch rounds otherwise."""
each_notebook = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)


def cells(path: Path) -> list[dict]:
    """The cells of a notebook that run."""
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def program():
    """``.ci/notebooks.py``."""
    for package in ("nbclient", "ipykernel", "matplotlib"):
        pytest.importorskip(package, reason="needs the extra notebooks")
    spec = importlib.util.spec_from_file_location("ci_notebooks", REPOSITORY / ".ci/notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def differences(now: str, before: str, tags: list[str]) -> list[tuple[str, str]]:
    """The words of two outputs that are not alike; numbers that may differ by a few, do so by more."""
    if "times" in tags:
        now, before = (re.sub(r"\d+", "0", text) for text in (now, before))
    words = now.split(), before.split()
    if len(words[0]) != len(words[1]):
        return [(now, before)]
    apart = [(new, old) for new, old in zip(*words, strict=True) if new != old]
    near = "roughly" in tags
    return [
        pair for pair in apart if not (near and all(map(str.isdigit, pair)) and abs(int(pair[0]) - int(pair[1])) <= FEW)
    ]


def test_there_are_two_and_they_are_small():
    assert [path.stem for path in EXAMPLES] == ["add_a_pruner", "choose_a_pruner"]
    assert sum(path.stat().st_size for path in EXAMPLES) < LARGEST


@each_notebook
def test_each_is_committed_as_it_ran_from_top_to_bottom(path):
    assert [cell["execution_count"] for cell in cells(path)] == [*range(1, len(cells(path)) + 1)]
    outputs = [output for cell in cells(path) for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} == {"stream", "display_data"}
    assert all(output.get("name") != "stderr" for output in outputs)
    assert any("image/png" in output.get("data", {}) for output in outputs)


@each_notebook
def test_links_lead_somewhere(path):
    text = "".join(part for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] for part in cell["source"])
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text)]
    assert links and all((path.parent / link).is_file() for link in links)


def test_the_new_pruner_has_fifteen_lines_at_most():
    (source,) = ("".join(cell["source"]) for cell in cells(EXAMPLES[0]) if "class Contrast" in "".join(cell["source"]))
    lines = source[source.index("@dataclass") :].splitlines()
    assert len([line for line in lines if line.strip()]) <= 15


@each_notebook
def test_what_it_shows_is_what_it_prints(path):
    notebooks = program()
    run, shown = notebooks.run(path), notebooks.nbformat.read(path, as_version=4)
    for now, before in zip(run.cells, shown.cells, strict=True):
        tags = before.metadata.get("tags", [])
        assert not differences(notebooks.printed(now), notebooks.printed(before), tags), now.source
        drawn, known = ([output.output_type for output in cell.get("outputs", ())] for cell in (now, before))
        assert drawn == known


def test_another_word_or_a_number_far_off_is_a_difference():
    assert differences("green 48 of 50", "green 49 of 50", ["roughly"]) == []
    assert differences("green 48", "green 49", []) == [("48", "49")]
    assert differences("green 44", "green 49", ["roughly"]) == [("44", "49")]
    assert differences("green 49", "blue 49", ["roughly"]) == [("green", "blue")]
    assert differences("green", "green 49", ["roughly"]) == [("green", "green 49")]
    assert differences("53 ms", "7 ms", ["times"]) == [] != differences("53 ms", "7 s", ["times"])
