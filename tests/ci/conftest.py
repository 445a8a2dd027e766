"""The programs behind the Makefile, which belong to no package."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def _program(name: str) -> ModuleType:
    spec = spec_from_file_location(f"ci_{name}", ROOT / ".ci" / f"{name}.py")
    sys.modules[spec.name] = module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def environments() -> ModuleType:
    return _program("environments")


@pytest.fixture(scope="session")
def runs() -> ModuleType:
    """``.ci/tests.py``."""
    return _program("tests")


@pytest.fixture(scope="session")
def check_types() -> ModuleType:
    return _program("check_types")


@pytest.fixture(scope="session")
def wheel() -> ModuleType:
    return _program("wheel")
