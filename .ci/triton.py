"""Compile the kernels under several Tritons, each beside the environment and in a process of its own.

A Triton that aborts ends its own process alone. One newer than any that was tested is told and fails nothing: another
project's release is no fault of this one.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".venv-triton"
VERSIONS = ("3.2.0", "3.4.0", "3.6.0", "newest")
TESTED = (3, 9)  # the newest that was seen to compile every kernel
TESTS = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "slow or not slow"]
TESTS += ["tests/pruners/search/test_compiling.py"]


def install(version: str) -> Path:
    """The folder that holds this Triton; the newest may be another one today and is always asked for."""
    folder = FOLDER / version
    if version == "newest" or not (folder / "triton" / "_C").exists():
        wanted = "triton" if version == "newest" else f"triton=={version}"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target", folder]
        subprocess.run([*command, "--disable-pip-version-check", wanted], check=True)
    return folder


def start(folder: Path) -> subprocess.Popen:
    """Begin the tests with the Triton of this folder."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (folder, ROOT))), "OMP_NUM_THREADS": "1"}
    with open(f"{folder}.log", "w") as log:
        return subprocess.Popen(TESTS, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)


def passed(folder: Path, tests: subprocess.Popen) -> bool:
    """Wait for the tests and say what came of them; False is a failure that counts."""
    failed = tests.wait()
    log = Path(f"{folder}.log").read_text(errors="replace")
    version = re.search(r'__version__ = "?\'?((\d+)\.(\d+)[^\'"]*)', (folder / "triton" / "__init__.py").read_text())
    new = tuple(map(int, version.groups()[1:])) > TESTED
    print(f"Triton {version[1]}: {log.strip().splitlines()[-1]}", flush=True)
    if failed:
        print(f"NEWER THAN TESTED: Triton {version[1]} failed" if new else log, flush=True)
    return new or not failed


def main() -> int:
    if sys.platform != "linux":
        sys.exit("Triton has wheels for Linux alone")
    began = time.monotonic()
    folders = [install(version) for version in VERSIONS]
    running = [start(folder) for folder in folders]
    results = [passed(*pair) for pair in zip(folders, running, strict=True)]
    print(f"Kernels under {len(VERSIONS)} Tritons: {(time.monotonic() - began) / 60:.1f} minutes")
    return int(not all(results))


if __name__ == "__main__":
    sys.exit(main())
