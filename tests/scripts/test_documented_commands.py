"""Every command that the documents show is run, dry: a command or a flag that no longer exists fails here.

What needs no more than a clone is run for real, too, on fewer questions than shown; ``NEEDS`` lists what is not.
"""

import importlib
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

NEEDS = {
    "a checkpoint of the hub": r"checkpoints/|CKPT=|pretrained=|visualize_relevance\.py --images",
    "the data of a benchmark": r"eval/(?!shapes)\w+\.sh|sweep (?!shapes)|lmms_eval/|(score|doctor) gqa|_for_submission",
    "a video model": r"scripts/video/",
    "a GPU": r"--device cuda|gpu",
    "the releases": r"--official-root",
    "minutes: tests/bench runs each suite small": r"llava\.bench --json",
    "an environment, or another host": r"^make |^pip |^git |^hf |^python -m venv|activate$",
    "a run of tests": r"-m pytest",
    "a visitor: tests/web opens the page": r"llava[. ]web",
}
"""Why a command is only run dry, and how it is known."""
TABLES = ("coming_from.md",)
"""Documents that show commands in tables, too."""
FEWER = {r"shapes(\.sh| v1_5)": "--limit 8", r"eval demo": "--num-questions 8"}
"""Words behind a command that is run for real, so that it asks a handful of questions and not a thousand."""
TYPED = "How many shapes are there?\n\n"
"""What is typed into a conversation."""
TELLS = {
    r"serve\.cli|llava chat|ask .*How many": "6",
    "ask .*cyan": "triangle",
    "tflops": "FLOP",
    r"eval table$": "divprune",
    r"shapes\.sh": "accuracy",
}
"""A word of what a command prints."""


def documented_commands() -> list[tuple[str, str]]:
    """The commands in the bash blocks of the documents, each with its document's name."""
    documents = [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").rglob("*.md"))]
    commands = []
    for document in documents:
        text = document.read_text() if document.is_file() else ""
        for block in re.findall(r"^```(?:bash|sh|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            lines = block.replace("\\\n", " ").splitlines()
            commands += [(document.name, line.strip()) for line in lines if line.strip() and line[0] != "#"]
        commands += [(document.name, command) for command in in_tables(text) if document.name in TABLES]
    return commands


def in_tables(text: str) -> list[str]:
    """The commands in the last column of tables, each once."""
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    spans = [span for row in rows for span in re.findall("`([^`]+)`", row.split("|")[-2])]
    found = [span for span in spans if re.match(r"(\w+=\S+ )*(bash|python) \S*\w", span)]
    return list(dict.fromkeys(found))


def why_not(command: str) -> str | None:
    """Why a command is only run dry; None of one that is run for real."""
    return next((reason for reason, pattern in NEEDS.items() if re.search(pattern, command)), None)


def for_real() -> list:
    """The commands that are run for real, each once; those that take more than a few seconds are slow tests."""
    shown = {shlex.join(shlex.split(line, comments=True)) for _, line in documented_commands() if not why_not(line)}
    return [
        pytest.param(command, marks=[pytest.mark.slow] if re.search(r"shapes\.sh|sweep|demo", command) else [])
        for command in sorted(shown)
    ]


def shortened(command: str) -> list[str]:
    """The words of a command, with those behind it that make it short."""
    more = " ".join(words for pattern, words in FEWER.items() if re.search(pattern, command))
    return shlex.split(f"{command} {more}")


def test_the_documents_show_commands():
    assert len(documented_commands()) > 4


def test_some_commands_are_run_for_real_and_every_reason_not_to_is_used():
    reasons = {why_not(command) for _, command in documented_commands()}
    assert reasons == {None, *NEEDS}


@pytest.mark.parametrize(("document", "command"), documented_commands())
def test_every_command_shown_runs_dry(workplace, document, command):
    workplace.folder.joinpath(".venv/bin").mkdir(parents=True)
    workplace.folder.joinpath(".venv/bin/activate").touch()
    result = workplace.run(f"set -e; cd() {{ :; }}; {command}")
    assert result.returncode == 0, f"{document}: {command}\n{result.stdout}{result.stderr}"
    for call in workplace.calls():
        if call.module.partition(".")[0] == "llava" or call.script:
            call.parse()


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder as a clone is, in which eight questions are answered already."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("scripts", "docs"):
        (folder / name).symlink_to(REPOSITORY / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", sys.argv)
        words = "python -m llava.eval sweep shapes v1_5 --pruners divprune --budgets 36 --limit 8".split()
        assert run_here(words) == 0
    return folder


def run_as_typed(words: list[str], folder: Path) -> str:
    """Run a command in a folder, its Python being this one; returns what it prints."""
    binaries = folder.parent / "bin"
    binaries.mkdir(exist_ok=True)
    if not (binaries / "python").exists():
        (binaries / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        (binaries / "python").chmod(0o755)
    environment = os.environ | {"PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_here(words: list[str]) -> int:
    """Run a command in this process, which has loaded what takes long to load; returns its exit status."""
    as_module = words[:2] == ["python", "-m"]
    sys.argv = words[2 if as_module else words[0] == "python" :]
    try:
        if as_module:
            runpy.run_module(words[2], run_name="__main__", alter_sys=True)
        elif words[0] == "python":
            runpy.run_path(words[1], run_name="__main__")
        else:
            assert words[0] == "llava"
            importlib.import_module("llava.cli").main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("command", for_real(), ids=str)
def test_what_needs_only_a_clone_runs_for_real(place, command, monkeypatch, capfd):
    pytest.importorskip("matplotlib", reason="needs the extra eval")
    monkeypatch.chdir(place)
    monkeypatch.setattr("sys.argv", sys.argv)
    monkeypatch.setattr("sys.stdin", io.StringIO(TYPED))
    words = shortened(command)
    if words[0] == "bash":
        told = run_as_typed(words, place)
    else:
        status = run_here(words)
        told, errors = capfd.readouterr()
        assert status == 0, errors
    for pattern, word in TELLS.items():
        assert not re.search(pattern, command) or word in told
