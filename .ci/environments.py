"""Constraints files: everything as it was tested, or the lowest releases that pyproject.toml admits.

python .ci/environments.py tested OUTPUT [EXTRA ...]   resolve with uv, write a constraints file
python .ci/environments.py lowest                      print the lower bounds as constraints
"""

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

try:
    import tomllib
except ImportError:  # Python 3.10
    from pip._vendor import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PINS = Path(".ci/pins.txt")
PYTHONS = tuple(f"3.{minor}" for minor in range(10, 21))
UV = (sys.executable, "-m", "uv", "pip", "compile", "--quiet")
# A CUDA build of torch asks for these by exact version, a CPU build for none of them.
BROUGHT_BY_TORCH = ("nvidia-", "cuda-")
HEADER = """\
# Every package, direct or not, that the tests run with. Written by `make constraints`: to change it, edit {pins}.
# Python: {pythons}
"""


def resolve(extras: list[str]) -> list[str]:
    """The lines of a constraints file for the package with these extras, on every system and Python."""
    wanted = [part for extra in extras for part in ("--extra", extra)]
    everywhere = ("--universal", "--python-version", "3.10", "--no-header", "--no-annotate")
    command = [*UV, *everywhere, "--constraints", str(PINS), *wanted, "pyproject.toml"]
    lines = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    return [line for line in lines if line and not line.startswith(("#", *BROUGHT_BY_TORCH))]


def pythons_with_wheels() -> list[str]:
    """The versions of Python for which there are wheels of the pinned torch."""
    torch = next(line for line in (ROOT / PINS).read_text().splitlines() if line.startswith("torch=="))
    command = [*UV, "--no-deps", "--only-binary", ":all:", "-", "--python-version"]
    return [
        python
        for python in PYTHONS
        if not subprocess.run([*command, python], input=torch, text=True, capture_output=True).returncode
    ]


def tested(output: str, extras: list[str]) -> None:
    header = HEADER.format(pins=PINS, pythons=" ".join(pythons_with_wheels()))
    Path(output).write_text(header + "".join(f"{line}\n" for line in resolve(extras)), encoding="utf-8")


def lowest(project: dict, given: set[str] = frozenset()) -> list[str]:
    """Constraints that hold every requirement of a pyproject's ``[project]`` at its lower bound.

    Args:
        given: names that are left out, since something else decides about their release.

    Raises:
        ValueError: a requirement has no lower bound.
    """
    extras = project.get("optional-dependencies", {}).values()
    bounds = {}
    for requirement in [*project["dependencies"], *(line for extra in extras for line in extra)]:
        name, bound = re.match(r"([\w.-]+)(?:\[[^]]*\])?(?:[^;]*?>=\s*([\w.]+))?", requirement).groups()
        if name == project["name"] or name in given:
            continue
        if bound is None and name not in bounds:
            raise ValueError(f"pyproject.toml: {requirement!r} has no lower bound")
        if bound is not None:
            bounds[name] = f"{name}=={bound}"
    return sorted(bounds.values())


def given_by_torch() -> set[str]:
    """torch, torchvision, which fits one torch, and Triton where the installed torch asks for it, as CUDA builds do."""
    asked = importlib.metadata.requires("torch") or []
    return {"torch", "torchvision"} | {"triton" for line in asked if re.match(r"triton\b", line)}


def main(arguments: list[str]) -> None:
    match arguments:
        case ["tested", output, *extras]:
            tested(output, extras)
        case ["lowest"]:
            project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
            print(*lowest(project, given_by_torch()), sep="\n")
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
