"""A workplace for dry runs: the repository's scripts, a `python` that only takes notes, and no GPU unless asked for."""

import importlib
import io
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from argparse import ArgumentParser
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from llava.eval.__main__ import program_of
from llava.eval.ask.run import run
from llava.records import InputError

REPOSITORY = Path(__file__).parents[2]
STUB = Path(__file__).with_name("stub_python.py")
EVALUATION = re.compile(r"bash scripts/(?:(?P<version>v1_\d)/eval/(?P<task>\w+)|video/eval)\.sh(?P<words>.*)")


@dataclass
class Call:
    """One call of `python -m MODULE` or `python SCRIPT.py`, as the stub has noted it."""

    module: str
    script: str | None
    options: list[str]
    device: str | None
    pid: int

    def __getitem__(self, option: str) -> str:
        """The one value that the call has for an option."""
        assert self.options.count(option) == 1, f"{option} in {self.options}"
        return self.options[self.options.index(option) + 1]

    def parser(self) -> ArgumentParser:
        """The command line of the program that was called."""
        if self.script:
            return runpy.run_path(self.script)["build_parser"]()
        name, *words = self.module.split()
        if words:
            return program_of(words)[0]
        module = importlib.import_module(name)
        if hasattr(module, "__path__"):
            module = importlib.import_module(f"{self.module}.__main__")
        return module.build_parser()

    def parse(self) -> None:
        """Parse the options as the program would that was called; a wrong one ends it."""
        if self.module == "llava":
            parser, _, words = importlib.import_module("llava.cli").program_of(self.options)
            parser.parse_args(words)
        else:
            self.parser().parse_args(self.options)

    def is_running(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True


class Workplace:
    """A folder with the scripts, in which evaluation runs in this process and what it starts only takes notes."""

    def __init__(self, folder: Path):
        self.folder, self.trouble = folder, "none"

    def run(self, command: str, **environment: str) -> subprocess.CompletedProcess:
        """Run a shell command here, with these environment variables, to its end."""
        if script := EVALUATION.match(command):
            named = [script["task"], script["version"]] if script["task"] else ["video"]
            return self._evaluate([*named, *shlex.split(script["words"])], environment)
        process = self.start(command, **environment)
        output, errors = process.communicate(timeout=600)
        return subprocess.CompletedProcess(command, process.returncode, output, errors)

    def _evaluate(self, words: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess:
        """Do in this process what an evaluation script has done by ``python -m llava.eval run``."""
        told = (io.StringIO(), io.StringIO())
        before = os.getcwd()
        os.chdir(self.folder)
        try:
            with redirect_stdout(told[0]), redirect_stderr(told[1]):
                code = self._run(words, environment)
        finally:
            os.chdir(before)
        return subprocess.CompletedProcess(words, code, told[0].getvalue(), told[1].getvalue())

    def _run(self, words: list[str], environment: dict[str, str]) -> int:
        stub = self.stub(self.folder.parent / "bin" / "python")
        try:
            run(words, self.do, {"PATH": os.environ["PATH"], **environment}, str(stub))
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
            return 1 if isinstance(end.code, str) else end.code or 0
        except InputError as error:
            print(error, file=sys.stderr)
            return 1
        return 0

    def do(self, words: list[str]) -> None:
        """Note what another program would do; with trouble in the data the look at it ends the run."""
        named = 1 if words[0] == "doctor" else 2
        call = Call(" ".join(["llava.eval", *words[:named]]), None, words[named:], None, os.getpid())
        with self.notes.open("a") as file:
            file.write(json.dumps(asdict(call)) + "\n")
        if words[0] == "doctor" and self.trouble == "data":
            sys.exit(1)

    def start(self, command: str, **environment: str) -> subprocess.Popen:
        """Start a shell command here, with these environment variables; its Python takes notes."""
        binaries = self.folder.parent / "bin"
        self.stub(binaries / "python")
        self.stub(binaries / "python3")
        self.put_stub(binaries / "llava", f'"{binaries / "python"}" -m llava "$@"')
        self.put_stub(binaries / "make", f'"{shutil.which("make")}" --dry-run -C "{REPOSITORY}" "$@"')
        for name in ("curl", "git", "hf", "pip", "unzip", "vllm", "wget"):
            self.put_stub(binaries / name, "true")
        kept = {key: value for key, value in os.environ.items() if key in ("HOME", "LANG", "PATH", "TMPDIR")}
        environment["PATH"] = f"{binaries}{os.pathsep}{kept['PATH']}"
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(["bash", "-c", command], cwd=self.folder, env=kept | environment, **pipes)

    def stub(self, path: Path) -> Path:
        """A ``python`` that only takes notes."""
        path.parent.mkdir(exist_ok=True)
        self.put_stub(path, f'"{sys.executable}" "{STUB}" "{self.notes}" {self.trouble} "$@"')
        return path

    @staticmethod
    def put_stub(path: Path, command: str) -> None:
        path.write_text(f"#!/bin/sh\nexec {command}\n")
        path.chmod(0o755)

    @property
    def notes(self) -> Path:
        return self.folder.parent / "notes.jsonl"

    def calls(self, module: str = "") -> list[Call]:
        """The calls of Python, those of one module only if it is named."""
        lines = self.notes.read_text().splitlines() if self.notes.exists() else []
        return [call for call in (Call(**json.loads(line)) for line in lines) if call.module.endswith(module)]

    def work(self) -> list[Call]:
        """The calls after the look at the data, with which every script begins."""
        doctor, *work = self.calls()
        assert doctor.module == "llava.eval doctor"
        return work

    def asking(self) -> list[Call]:
        """The calls that ask questions, in the order of their chunks."""
        asking = [call for call in self.calls() if "--chunk-idx" in call.options]
        return sorted(asking, key=lambda call: int(call["--chunk-idx"]))

    def ask(self, command: str, **environment: str) -> Call:
        """Run a script that asks its questions in one process, to its good end; returns that call."""
        result = self.run(command, **environment)
        assert result.returncode == 0, result.stderr
        (call,) = self.asking()
        return call

    def answers_path(self, command: str, **environment: str) -> str:
        """Where a run writes its answers, below the benchmark's folder of answers."""
        result = self.run(command, **environment)
        assert result.returncode == 0, result.stderr
        path = re.search("^answers: (.*)$", result.stdout, re.MULTILINE)[1]
        assert (self.folder / path).is_file()
        return path.partition("/answers/")[2]


@pytest.fixture
def workplace(tmp_path) -> Workplace:
    folder = tmp_path / "a place with spaces"
    folder.mkdir()
    for name in ("scripts", "llava"):
        (folder / name).symlink_to(REPOSITORY / name)
    return Workplace(folder)
