"""Run a part of the tests: ``python .ci/tests.py NAME [--newest] [--record FILE] [arguments of pytest]``.

Says at the end how long it took, with what, and how it went. With ``--newest`` a deprecation that this package causes
is an error, and a failure with packages newer than any that the tests have passed with is told, but is none of the run.
"""

import argparse
import datetime
import importlib.metadata
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
TESTED = (".ci/constraints.txt", ".ci/newest.txt")
NAMED = ("torch", "transformers", "triton")
# A deprecated argument is told of where the call was made: in this package, or in what calls a model for it.
CALLERS = r"(llava(\.|$)|(torch\.nn\.modules\.module|transformers\.utils\.(generic|output_capturing))$)"
ERRORS = "\n".join(f"error::{kind}:{CALLERS}" for kind in ("FutureWarning", "DeprecationWarning"))
COLUMNS = ("tests", "system", "Python", *NAMED, "result", "date")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--newest", action="store_true")
    parser.add_argument("--record", type=Path, metavar="FILE", help="a page whose table gets a row")
    options, arguments = parser.parse_known_args()
    if options.newest:
        arguments += ["-o", f"filterwarnings={ERRORS}"]
    code, counts, minutes = run(arguments)
    newer = newer_than(tested_releases()) if options.newest and code else []
    with_what = ", ".join([*installed(NAMED), f"Python {platform.python_version()}"])
    print(f"{options.name} took {minutes:.1f} minutes with {with_what}")
    if newer:
        print(f"NEWER THAN TESTED: {counts['failed'] or 'all'} failed ({', '.join(newer)})")
    elif counts["passed"] + counts["failed"]:
        print(f"{options.name}: {result(counts)}")
    if options.record:
        record(options.record, row(options.name, counts, code))
    return 0 if newer else code


def run(arguments: list[str]) -> tuple[int, dict[str, int], float]:
    """The exit code of pytest, how many tests passed, failed and were skipped, and the minutes it took."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", f"--junitxml={report}", *arguments]
        code = subprocess.run(command, cwd=ROOT).returncode
        counts = counted(report.read_text(encoding="utf-8")) if report.exists() else counted("<testsuite/>")
    return code, counts, (time.monotonic() - started) / 60


def counted(report: str) -> dict[str, int]:
    """Numbers of tests in a report in JUnit's format."""
    suites = list(ElementTree.fromstring(report).iter("testsuite"))
    total, *parts = (
        sum(int(suite.get(key, 0)) for suite in suites) for key in ("tests", "failures", "errors", "skipped")
    )
    return {"passed": total - sum(parts), "failed": parts[0] + parts[1], "skipped": parts[2]}


def result(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {word}" for word, count in counts.items())


def tested_releases() -> dict[str, str]:
    """The newest release of every package that the tests have passed with, on this system and Python."""
    lines = [line for file in TESTED for line in (ROOT / file).read_text(encoding="utf-8").splitlines()]
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {pin.name: str(pin.specifier)[2:] for pin in pins if not pin.marker or pin.marker.evaluate()}


def newer_than(tested: dict[str, str]) -> list[str]:
    """What is installed and newer than it was tested, with both releases."""
    found = []
    for name, release in tested.items():
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if Version(version).public != release and Version(version) > Version(release):
            found.append(f"{name} {version} after {release}")
    return found


def installed(names: tuple[str, ...]) -> list[str]:
    present = {entry.metadata["Name"] for entry in importlib.metadata.distributions()}
    return [f"{name} {importlib.metadata.version(name)}" for name in names if name in present]


def row(name: str, counts: dict[str, int], code: int) -> list[str]:
    """A row of the table, in the order of ``COLUMNS``."""
    import torch

    device = "ROCm" if torch.version.hip else "CUDA" if torch.cuda.is_available() else "CPU"
    releases = dict(entry.split() for entry in installed(NAMED))
    how = result(counts) if code in (0, 1) else f"ended with exit code {code}"
    today = datetime.date.today().isoformat()
    system = f"{platform.system()} {platform.machine()}, {device}"
    return [name, system, platform.python_version(), *(releases.get(name, "") for name in NAMED), how, today]


def record(page: Path, new: list[str]) -> None:
    """Put a row into the page's table, in the place of one about the same tests, system and releases."""
    lines = page.read_text(encoding="utf-8").splitlines()
    line = f"| {' | '.join(new)} |"
    same = [number for number, old in enumerate(lines) if cells(old)[:6] == cells(line)[:6]]
    if same:
        lines[same[0]] = line
    else:
        last = max(number for number, old in enumerate(lines) if cells(old) and cells(old)[-2] != "not run")
        lines.insert(last + 1, line)
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")[1:-1]]


if __name__ == "__main__":
    sys.exit(main())
