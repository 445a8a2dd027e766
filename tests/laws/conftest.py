"""What the laws share: their recordings, and programs that run in this process."""

import runpy
import sys
import warnings
from pathlib import Path

import pytest

from .recording import Recording

REPOSITORY = Path(__file__).parents[2]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record-laws", action="store_true", help="see tests/record_laws.py")


@pytest.fixture(scope="session")
def records(request) -> bool:
    """Whether what is found is written down instead of being held against what was."""
    return request.config.getoption("--record-laws", False)


@pytest.fixture(scope="module")
def recording(request, records):
    """The recording at the module's ``RECORDED``."""
    recording = Recording(request.module.RECORDED, records)
    yield recording
    if records:
        recording.write()


@pytest.fixture
def program(monkeypatch, capsys):
    """Run ``python -m MODULE WORD...`` or ``python SCRIPT.py WORD...`` in this process.

    Returns what it printed, and the error it ended with, without the program's name; "" at a good end.
    """

    def run(name: str, *words: str) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", [name, *words])
        capsys.readouterr()
        error = ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # imported before, and runs anew
                if name.endswith(".py"):
                    runpy.run_path(str(REPOSITORY / name), run_name="__main__")
                else:
                    runpy.run_module(name, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            error = str(end.code or "").partition("error: ")[2] if end.code else ""
        return capsys.readouterr().out, error

    return run
