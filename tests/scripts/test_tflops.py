import subprocess
import sys
from pathlib import Path

import pytest

from scripts import tflops

SCRIPT = Path(tflops.__file__)
MISLABELLED = "as printed"  # VisPruner's rows whose values are those of other numbers of tokens


@pytest.mark.parametrize("title", tflops.TABLES)
def test_the_formulas_give_the_published_values(title):
    entries, formula = tflops.TABLES[title]
    for entry in entries:
        if MISLABELLED not in entry.label:
            assert formula(entry) == pytest.approx(entry.published, rel=0.002), entry


def test_two_rows_of_vispruner_are_not_what_their_label_says():
    wrong = {entry.visual: tflops.vispruner_tera(entry) for entry in tflops.VISPRUNER if MISLABELLED in entry.label}
    assert wrong == {640: pytest.approx(10.410, abs=1e-3), 160: pytest.approx(3.992, abs=1e-3)}


def test_the_difference_stands_beside_both_values():
    lines = tflops.table("CDPruner, TFLOP").splitlines()
    (line,) = (line for line in lines if line.startswith("LLaVA-NeXT-7B, full"))
    assert line.split()[-4:] == ["2880", "41.650", "41.700", "-0.050"]


def test_the_script_prints_every_table():
    printed = subprocess.check_output([sys.executable, SCRIPT], text=True)
    assert all(title in printed for title in tflops.TABLES)
