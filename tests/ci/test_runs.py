"""A part of the tests as continuous integration runs it: what it says, and when a failure is none of the run."""

import re
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, settings

REPORT = '<testsuites><testsuite tests="9" failures="1" errors="2" skipped="3"/></testsuites>'


@pytest.fixture
def part(runs, monkeypatch, capsys):
    """A function that runs ``.ci/tests.py`` on a stand-in for pytest: its exit code, and what is newer than tested."""

    def run(code, newer, *options):
        counts = {"passed": 5, "failed": 3 if code == 1 else 0, "skipped": 1}
        monkeypatch.setattr(runs, "run", lambda arguments: (code, counts, 1.25))
        monkeypatch.setattr(runs, "newer_than", lambda tested: newer)
        monkeypatch.setattr("sys.argv", ["tests.py", "newest", *options])
        return runs.main(), capsys.readouterr().out.splitlines()

    return run


def test_a_failure_is_one_of_the_run_where_nothing_is_newer_than_tested(part):
    code, lines = part(1, [], "--newest")
    assert code == 1
    assert lines[0].startswith("newest took 1.2 minutes with torch 2.") and "transformers 5." in lines[0]
    assert lines[1:] == ["newest: 5 passed, 3 failed, 1 skipped"]


def test_a_failure_with_something_newer_is_told_and_is_none_of_the_run(part):
    newer = ["transformers 5.99 after 5.24.0"]
    code, lines = part(1, newer, "--newest")
    assert code == 0 and lines[1:] == ["NEWER THAN TESTED: 3 failed (transformers 5.99 after 5.24.0)"]
    code, lines = part(2, newer, "--newest")  # no test could be collected
    assert code == 0 and lines[1:] == ["NEWER THAN TESTED: all failed (transformers 5.99 after 5.24.0)"]


def test_elsewhere_a_failure_is_one_of_the_run_whatever_is_installed(part):
    code, lines = part(1, ["transformers 5.99 after 5.24.0"])
    assert code == 1 and lines[1:] == ["newest: 5 passed, 3 failed, 1 skipped"]


def test_what_passes_passes_with_newer_packages(part):
    code, lines = part(0, ["transformers 5.99 after 5.24.0"], "--newest")
    assert code == 0 and lines[1:] == ["newest: 5 passed, 0 failed, 1 skipped"]


def test_counts_what_a_report_says(runs):
    assert runs.counted(REPORT) == {"passed": 3, "failed": 3, "skipped": 3}
    assert runs.counted("<testsuite/>") == {"passed": 0, "failed": 0, "skipped": 0}


def test_newer_means_a_later_release_of_what_is_installed(runs, monkeypatch):
    versions = {"torch": "2.13.0+cpu", "numpy": "2.10.0", "triton": "3.9.0"}.__getitem__
    missing = runs.importlib.metadata.PackageNotFoundError

    def version(name):
        try:
            return versions(name)
        except KeyError:
            raise missing(name) from None

    monkeypatch.setattr(runs.importlib.metadata, "version", version)
    tested = {"torch": "2.13.0", "numpy": "2.9.1", "triton": "3.10.0", "absent": "1.0"}
    assert runs.newer_than(tested) == ["numpy 2.10.0 after 2.9.1"]


def test_what_was_tested_is_the_constraints_and_what_passed_beyond_them(runs):
    tested = runs.tested_releases()
    assert tested["torch"] == "2.13.0" and tested["triton"] != "3.7.1"
    assert not any("=" in release for release in tested.values())


CALLS = """
import warnings
import pytest

@pytest.mark.parametrize("category", [FutureWarning, DeprecationWarning])
@pytest.mark.parametrize("module", ["llava.x", "llava", "torch.nn.modules.module", "llavaplus", "transformers.x"])
def test_a_call(module, category):
    names = {"__name__": module, "deprecated": lambda: warnings.warn("old", category, stacklevel=2)}
    exec(compile("deprecated()", "x", "exec"), names)
"""


def test_a_deprecation_is_an_error_where_this_package_causes_it(runs, tmp_path):
    (tmp_path / "test_calls.py").write_text(CALLS)
    command = [sys.executable, "-m", "pytest", "-q", "-rf", "-o", f"filterwarnings={runs.ERRORS}", "test_calls.py"]
    output = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout
    failed = set(re.findall(r"^FAILED .*\[(.*)-\w+\]", output, re.MULTILINE))
    assert failed == {"llava.x", "llava", "torch.nn.modules.module"} and "6 failed, 4 passed" in output


PAGE = "text\n\n| tests | system |\n|---|---|\n| test | macOS |  |  |  |  | not run |  |\n\nmore\n"


def test_a_row_is_added_and_replaced(runs, tmp_path):
    page = tmp_path / "tested.md"
    page.write_text(PAGE)
    row = [
        "test",
        "Linux x86_64, CPU",
        "3.11.7",
        "2.13.0",
        "5.24.0",
        "3.7.1",
        "9 passed, 0 failed, 1 skipped",
        "2026-11-28",
    ]
    runs.record(page, row)
    runs.record(page, ["oldest", *row[1:]])
    runs.record(page, [*row[:-2], "8 passed, 1 failed, 1 skipped", "2026-11-29"])
    lines = page.read_text().splitlines()
    assert lines[:4] == PAGE.splitlines()[:4] and lines[-3:] == PAGE.splitlines()[-3:]
    assert [runs.cells(line)[0] for line in lines[4:6]] == ["test", "oldest"]
    assert runs.cells(lines[4])[-2:] == ["8 passed, 1 failed, 1 skipped", "2026-11-29"]


def test_a_busy_machine_fails_no_property_and_a_failure_can_be_repeated():
    assert settings.default.deadline is None and settings.default.print_blob
    assert HealthCheck.too_slow in settings.default.suppress_health_check
