"""Every pruner chooses exactly what the official code chose, in either form of its search."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import check_golden
from tests.check_golden import files, load, misses, prepared

from .conftest import FORMS

TESTS = Path(__file__).parents[1]
GOLDEN = TESTS / "golden"
NAMES = [path.stem for path in files(GOLDEN)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_chooses_what_the_official_code_chose(name, form):
    with FORMS[form]():
        assert misses(GOLDEN / f"{name}.npz") == []


def test_every_official_selection_is_represented():
    assert {load(path)[0] for path in files(GOLDEN)} == {*check_golden.MAKE, *check_golden.OTHERS}


def test_tiles_normalised_apart_would_choose_otherwise():
    algo, case = load(GOLDEN / "cdpruner_B5_N144_D192_C64_M2_T32.npz")
    pruner, cues = prepared(algo, case)
    assert not torch.equal(pruner(replace(cues, image_index=torch.arange(5))), case["indices"])


def spoilt(name, folder, **changed):
    """A copy of a file with some of its arrays changed."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        np.savez(folder / f"{name}.npz", **{**arrays, **changed})


def test_a_folder_is_counted_and_its_misses_are_told(tmp_path):
    whole, other, order = (f"divprune_N16_D32_T{kept}_float" for kept in (1, 8, 15))
    with np.load(GOLDEN / f"{other}.npz") as arrays:
        chosen = arrays["indices"]
    swapped = np.sort(np.append(chosen[:, 1:], [[min(set(range(16)) - {*chosen[0]})]], axis=1))
    shutil.copy(GOLDEN / f"{whole}.npz", tmp_path)
    spoilt(other, tmp_path, indices=swapped)
    with np.load(GOLDEN / f"{order}.npz") as arrays:
        spoilt(order, tmp_path, order=arrays["order"][:, ::-1])
    spoilt("vispruner_B1_N16_D32_T8_r100_float", tmp_path, algo="someoneelse")
    spoilt("mfpruner_N16_D24_C24_M1_T5", tmp_path, important=1)
    (tmp_path / "mfpruner_N16_D24_C24_M1_T5.npz").rename(tmp_path / "mfpruner_compatonly_N16.npz")
    (tmp_path / "torn.npz").write_bytes(b"PK")
    command = [sys.executable, TESTS / "check_golden.py", tmp_path]
    run = subprocess.run(command, capture_output=True, text=True)
    lines = run.stdout.splitlines()
    assert run.returncode == 1 and not run.stderr and lines[-1] == "1/5 golden selections"
    for line, start in zip(
        lines,
        (
            f"{order}.npz: another order up to pick 1",
            f"{other}.npz: other tokens",
            "torn.npz: cannot be read",
            "vispruner_B1_N16_D32_T8_r100_float.npz: nobody knows the method 'someoneelse'",
        ),
        strict=False,
    ):
        assert line.startswith(start)


@pytest.mark.parametrize("words", [[], ["no/such/folder"], ["a", "b"]])
def test_what_is_no_folder_is_refused(words, capsys):
    assert check_golden.main(words) == 2 and "FOLDER" in capsys.readouterr().out


def test_a_folder_without_selections_is_no_success(tmp_path, capsys):
    assert check_golden.main([str(tmp_path)]) == 1 and capsys.readouterr().out == "0/0 golden selections\n"
