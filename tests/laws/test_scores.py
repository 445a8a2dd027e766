"""Scorers, converters and tables print and write what is recorded, given the files in ``tests/golden/scores/inputs``.

An input file holds ``files`` by their paths and ``runs``: the words of a program by what they show.
"""

import json
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from .recording import GOLDEN

RECORDED = GOLDEN / "scores" / "recorded.json"
INPUTS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (GOLDEN / "scores/inputs").glob("*.json")}
RUNS = [(name, run) for name, content in sorted(INPUTS.items()) for run in content["runs"]]
PARTS = {"all": slice(None), "all but the first": slice(1, None), "all but the last": slice(-1)}


def put(files: dict[str, Any]) -> None:
    """Write the files here: lines from a list for ``.jsonl`` and POPE's labels, or a part of another file's."""
    for name, content in files.items():
        if isinstance(content, str) and content.partition(" of ")[0] in PARTS:
            part, _, source = content.partition(" of ")
            content = files[source][PARTS[part]]
        if name.endswith(".jsonl") or "coco_pope" in name:
            content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in content)
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def written(before: set[Path]) -> Iterator[tuple[str, Any]]:
    """The new files, by what they say."""
    for path in sorted(set(Path().rglob("*")) - before):
        if path.suffix == ".xlsx":
            yield str(path), rows_of(path)
        elif path.suffix == ".html":
            yield str(path), texts_of(path.read_text(encoding="utf-8"))
        elif path.is_file():
            text = path.read_text(encoding="utf-8")
            yield str(path), json.loads(text) if path.suffix == ".json" else text


def rows_of(path: Path) -> list[str]:
    openpyxl = pytest.importorskip("openpyxl")
    rows = openpyxl.load_workbook(path).active.iter_rows(values_only=True)
    return ["\t".join("" if cell is None else str(cell) for cell in row) for row in rows]


class Tables(HTMLParser):
    """The headings of a page and the cells of its tables, a text for each row."""

    def __init__(self):
        super().__init__()
        self.texts: list[str] = []
        self.within: str | None = None

    def handle_starttag(self, tag, attrs):
        if tag in ("h1", "h2", "h3", "tr"):
            self.texts.append("")
        self.within = tag if tag in ("h1", "h2", "h3", "td", "th", "tr") else self.within
        if tag in ("td", "th") and self.texts:
            self.texts[-1] += " | "

    def handle_endtag(self, tag):
        self.within = None if tag in ("h1", "h2", "h3", "table") else self.within

    def handle_data(self, data):
        if self.within and self.texts:
            self.texts[-1] += data.strip()


def texts_of(page: str) -> list[str]:
    tables = Tables()
    tables.feed(page)
    return [text for text in tables.texts if text]


@pytest.mark.parametrize(("name", "run"), RUNS)
def test_prints_and_writes_what_is_recorded(name, run, tmp_path, monkeypatch, program, recording):
    monkeypatch.chdir(tmp_path)
    put(INPUTS[name]["files"])
    before = set(Path().rglob("*"))
    printed, error = program(*INPUTS[name]["runs"][run])
    recording.check(f"{name}, {run}", {"printed": printed, "error": error, "written": dict(written(before))})


def test_nothing_else_is_recorded(recording, records):
    if not records:
        assert recording.known.keys() == {f"{name}, {run}" for name, run in RUNS}
