"""Record anew what tests/laws holds every change of the code against: ``python tests/record_laws.py [TEST...]``.

WARNING: these recordings are what users' answers, commands, scores and tables were. A change that alters one of them
alters what users get. Record only to add cases or to follow a change of behaviour that is meant, look at every line
that ``git diff tests/golden`` shows, and give the reason in the commit. Never record to make a test pass.

Answers are recorded with Transformers of the middle of the supported range. What rounding decides is found by asking
again with weights that are off by a few units in the last place, and is recorded as "(not stable)".
"""

import sys
from pathlib import Path

import pytest

LAWS = str(Path(__file__).parent / "laws")

if __name__ == "__main__":
    named = any(not word.startswith("-") for word in sys.argv[1:])
    sys.exit(pytest.main([*sys.argv[1:], *([] if named else [LAWS]), "-m", "", "--record-laws"]))
