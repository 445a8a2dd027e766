"""The page of licences: a row for every file of the package, and what every pruner says of its release."""

import re
from pathlib import Path

import pytest

from llava.pruners import PRUNERS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
FILES = [path.relative_to(ROOT).as_posix() for path in (ROOT / "llava").rglob("*") if path.is_file()]
PACKAGED = sorted(name for name in FILES if "__pycache__" not in name)


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]


def named(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def matcher(pattern: str) -> re.Pattern:
    """A pattern of files, in which ``**/`` stands for any folders and ``*`` for a part of a name."""
    return re.compile(re.escape(pattern).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*"))


PATTERNS = [pattern for row in rows("What the wheel holds") for pattern in named(row[0])]
METHODS = {
    name: row[1:] for row in rows("The methods, and the code that their authors released") for name in named(row[0])
}


def test_every_file_of_the_package_is_in_one_row():
    for name in PACKAGED:
        assert sum(bool(matcher(pattern).fullmatch(name)) for pattern in PATTERNS) == 1, name


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_row_is_about_files_that_there_are(pattern):
    assert any(matcher(pattern).fullmatch(name) for name in PACKAGED)


def test_every_row_of_files_has_the_licence_of_the_package():
    assert {row[2] for row in rows("What the wheel holds")} == {"Apache-2.0"}


@pytest.mark.parametrize("name", PRUNERS)
def test_every_pruner_has_the_licence_of_its_release(name):
    said, cls = METHODS[name][0], PRUNERS[name]
    unknown = "not looked up" if cls.source else "no "
    assert said == cls.licence if cls.licence else said.startswith(unknown)


def test_a_release_that_is_not_for_commercial_use_is_told_to_be_apart():
    assert "commercially" in METHODS["divprune"][1] and "independent" in METHODS["divprune"][1]
