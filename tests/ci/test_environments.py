"""Constraints: what is in the files, and the lower bounds that are read from a pyproject."""

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from llava import compat

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / ".ci").glob("constraints*.txt"))
SYSTEMS = ("linux", "darwin")
(PYTHONS,) = re.findall(r"^# Python: (.*)$", (ROOT / ".ci" / "constraints.txt").read_text(), re.MULTILINE)


def pins(file):
    lines = file.read_text().splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


def holds(pin, system, python):
    place = {"sys_platform": system, "python_version": python, "python_full_version": f"{python}.0"}
    return pin.marker is None or pin.marker.evaluate(place | {"platform_system": system.title()})


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_package_has_one_release_on_every_system_and_python(file):
    for system in SYSTEMS:
        for python in PYTHONS.split():
            names = [pin.name for pin in pins(file) if holds(pin, system, python)]
            assert len(names) == len(set(names)) and {"torch", "transformers", "numpy", "tokenizers"} <= set(names)
            assert ("triton" in names) == (system == "linux")
    assert all(re.fullmatch(r"==[\w.]+", str(pin.specifier)) for pin in pins(file))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_what_a_cuda_build_of_torch_brings_is_left_to_it(file):
    assert not [pin.name for pin in pins(file) if pin.name.startswith(("nvidia", "cuda"))]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_transformers_is_within_the_tested_range(file):
    tested = Requirement(f"transformers>={compat.TESTED[0]},<={compat.TESTED[1]}").specifier
    assert all(str(pin.specifier)[2:] in tested for pin in pins(file) if pin.name == "transformers")


def test_requirements_are_held_at_their_lower_bounds(environments):
    project = {
        "name": "llava",
        "dependencies": ["numpy>=1.26", "torch>=2.6", "some.thing>=1, <3"],
        "optional-dependencies": {
            "kernels": ["triton>=3.2; platform_system == 'Linux'"],
            "test": ["llava[kernels]", "pytest[extra] >=8", "numpy<3"],
        },
    }
    expected = ["numpy==1.26", "pytest==8", "some.thing==1", "triton==3.2"]
    assert environments.lowest(project, {"torch"}) == expected
    assert environments.lowest(project, {"torch", "triton"}) == expected[:-1]


@pytest.mark.parametrize("requirement", ["peft", "peft<1", "peft==0.18"])
def test_a_requirement_without_a_lower_bound_is_refused(environments, requirement):
    with pytest.raises(ValueError, match=re.escape(f"'{requirement}' has no lower bound")):
        environments.lowest({"name": "llava", "dependencies": [requirement]})


def test_every_requirement_of_this_package_has_a_lower_bound(environments):
    project = environments.tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"transformers==5.17", "peft==0.18"} < set(environments.lowest(project))
