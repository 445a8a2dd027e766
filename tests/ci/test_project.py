"""What pyproject.toml says of the package, held against what else says it."""

import re
from pathlib import Path

import pytest

import llava

try:
    import tomllib
except ImportError:  # Python 3.10
    from pip._vendor import tomli as tomllib

ROOT = Path(__file__).parents[2]
DOCUMENT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = DOCUMENT["project"]


def test_the_version_stands_in_one_place():
    assert "version" in PROJECT["dynamic"] and "version" not in PROJECT
    assert DOCUMENT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "llava.__version__"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", llava.__version__)


def test_the_classifiers_name_the_pythons_that_the_packages_have_wheels_for():
    (line,) = re.findall(r"^# Python: (.*)$", (ROOT / ".ci/constraints.txt").read_text(), re.MULTILINE)
    named = [entry.rpartition(" :: ")[2] for entry in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", entry)]
    assert named == line.split() and PROJECT["requires-python"] == f">={named[0]}"


def test_the_licence_is_told_by_its_short_name_alone():
    assert PROJECT["license"] == "Apache-2.0" and PROJECT["license-files"] == ["LICENSE"]
    assert not [entry for entry in PROJECT["classifiers"] if entry.startswith("License")]


def test_links_are_addresses():
    assert all(address.startswith("https://") for address in PROJECT.get("urls", {}).values())


@pytest.mark.parametrize("group", [*PROJECT["optional-dependencies"]])
def test_an_extra_names_extras_that_there_are(group):
    for requirement in PROJECT["optional-dependencies"][group]:
        if found := re.match(r"llava\[([^]]*)\]", requirement):
            assert set(found[1].split(",")) <= set(PROJECT["optional-dependencies"])
