"""Selection stands alone: torch, the standard library and itself, and Triton where the kernels are."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import llava.pruners

FOLDER = Path(llava.pruners.__file__).parent
FILES = sorted(FOLDER.rglob("*.py"))
NAMES = ("kernels", "greedy_kernel", "duplicates_kernel", "together")
KERNELS = [FOLDER / "search" / f"{name}.py" for name in NAMES]


def imported(path):
    """Every module a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_imports_torch_and_itself_alone(path):
    others = {name for name in imported(path) if not f"{name}.".startswith(("torch.", "llava.pruners."))}
    optional = {"triton"} if path in KERNELS else set()
    assert {name.split(".")[0] for name in others} - optional <= sys.stdlib_module_names


def test_subfolders_are_looked_at_too():
    assert {*KERNELS} <= {*FILES}


@pytest.mark.parametrize("other", ["transformers", "triton"])
def test_importing_the_pruners_does_not_import(other):
    code = f"import sys, llava.pruners; sys.exit({other!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=FOLDER.parent.parent).returncode == 0
