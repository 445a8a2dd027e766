"""A workplace for dry runs: the repository's scripts, a `python` that only takes notes, and no GPU unless asked for."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
STUB = Path(__file__).with_name("stub_python.py")


@dataclass
class Workplace:
    folder: Path
    trouble: str = "none"

    def run(self, command: str, **environment: str) -> subprocess.CompletedProcess:
        """Run a shell command here, with these environment variables, to its end."""
        process = self.start(command, **environment)
        output, errors = process.communicate(timeout=60)
        return subprocess.CompletedProcess(command, process.returncode, output, errors)

    def start(self, command: str, **environment: str) -> subprocess.Popen:
        """Start a shell command here, with these environment variables."""
        binaries = self.folder.parent / "bin"
        binaries.mkdir(exist_ok=True)
        self.put_stub(binaries / "python", f'"{sys.executable}" "{STUB}" "{self.notes}" {self.trouble} "$@"')
        self.put_stub(binaries / "make", f'"{shutil.which("make")}" --dry-run -C "{REPOSITORY}" "$@"')
        for name in ("curl", "git", "hf", "pip", "unzip", "wget"):
            self.put_stub(binaries / name, "true")
        kept = {key: value for key, value in os.environ.items() if key in ("HOME", "LANG", "PATH", "TMPDIR")}
        environment["PATH"] = f"{binaries}{os.pathsep}{kept['PATH']}"
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(["bash", "-c", command], cwd=self.folder, env=kept | environment, **pipes)

    @staticmethod
    def put_stub(path: Path, command: str) -> None:
        path.write_text(f"#!/bin/sh\nexec {command}\n")
        path.chmod(0o755)

    @property
    def notes(self) -> Path:
        return self.folder.parent / "notes.jsonl"

    def calls(self, module: str = "") -> list[dict]:
        """The calls of `python -m`, those of one module only if it is named."""
        lines = self.notes.read_text().splitlines() if self.notes.exists() else []
        return [call for call in map(json.loads, lines) if call["module"].endswith(module)]


@pytest.fixture
def workplace(tmp_path) -> Workplace:
    folder = tmp_path / "a place with spaces"
    folder.mkdir()
    for name in ("scripts", "llava"):
        (folder / name).symlink_to(REPOSITORY / name)
    return Workplace(folder)
