"""All that continuous integration runs: its parts are targets, and what they say in the end is found."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUN = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def test_every_part_is_a_target_of_the_makefile():
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE.replace("\\\n", ""), re.MULTILINE)
    (extras,) = re.findall(r"^EXTRAS := (.*)$", MAKEFILE, re.MULTILINE)
    parts = re.findall(r"^part ([\w-]+)", RUN, re.MULTILINE)
    assert {"test", "lint", "docs", "wheel", "test-browser"} <= set(parts)
    assert set(parts) <= {*phony.split(), *(f"test-{extra}" for extra in extras.split())}


@pytest.mark.parametrize(
    "line",
    [
        "test: 9502 passed, 0 failed, 61 skipped",
        "browser: 12 passed, 0 failed, 0 skipped",
        "make docs: 41 seconds",
        "Kernels under 4 Tritons: 1.7 minutes",
        "wheel: 1 passed, llava-0.1.0-py3-none-any.whl of 6.5 MB",
        "types: 0 errors in llava/asking; 589 elsewhere, 589 are recorded",
        "NEWER THAN TESTED: 3 failed (transformers 5.99 after 5.24.0)",
    ],
)
def test_what_a_part_says_in_the_end_is_found_in_the_log(line):
    (ends,) = re.findall(r"^ends='(.*)'$", RUN, re.MULTILINE)
    assert re.search(ends, line) and not re.search(ends, f"  {line}")
