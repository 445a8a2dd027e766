import json

import pytest

from llava.eval.__main__ import main
from llava.eval.tasks.base import Given
from llava.eval.tasks.mmvet import MMVET
from llava.records import InputError

SAMPLES = {
    "v1_0": {"question": "?", "capability": ["ocr", "rec"]},
    "v1_1": {"question": "?", "capability": ["rec"]},
    "v1_2": {"question": "?", "capability": ["rec", "ocr"]},
}


def score(given, samples):
    return MMVET.score(Given(given, annotations=[samples]))


def grades(*scores):
    return {
        name: {"model": [], "content": [], "score": list(runs)} for name, runs in zip(SAMPLES, scores, strict=False)
    }


def test_the_score_is_the_mean_grade_by_capability_and_combination():
    result = score(grades([1.0], [0.5], [0.0]), SAMPLES)
    assert (result.benchmark, result.value, result.count, result.details["std"]) == ("mmvet", 50.0, 3, 0.0)
    assert result.details["by_capability"] == {
        "ocr": {"value": 50.0, "count": 2},
        "rec": {"value": 50.0, "count": 3},
    }
    assert result.details["by_combination"] == {
        "rec": {"value": 50.0, "count": 1},
        "rec,ocr": {"value": 50.0, "count": 2},
    }


def test_runs_are_averaged_and_their_deviation_given():
    # run 1: 1, 0.5, 0 -> 50; run 2: 1, 1, 0.4 -> 80
    result = score(grades([1.0, 1.0], [0.5, 1.0], [0.0, 0.4]), SAMPLES)
    assert (result.value, result.details["runs"]) == (pytest.approx(65), pytest.approx([50, 80]))
    assert result.details["std"] == pytest.approx(15)


def test_what_is_no_grade_counts_as_nought_and_is_reported():
    result = score(grades([1], [-1], ["0.5"]), SAMPLES)
    assert (result.value, result.unparsable) == (pytest.approx(100 / 3), 2)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (grades([1.0], [1.0]), "1 without an answer, such as 'v1_2'"),
        (grades([1.0], [1.0], [1.0, 0.5]), r"different numbers of runs, \[1, 2\]"),
        (grades([], [], []), r"different numbers of runs, \[0\]"),
    ],
)
def test_unfinished_grades_are_refused(given, complaint):
    with pytest.raises(InputError, match=complaint):
        score(given, SAMPLES)


def test_the_program_prints_and_writes(put, tmp_path, capsys):
    words = ["--annotation-file", put("mm-vet.json", SAMPLES), "--result-file", put("g.json", grades([1], [0.5], [0]))]
    main(["score", "mmvet", *words, "--output", str(tmp_path / "r.json")])
    assert capsys.readouterr().out.startswith("Total: 50.0\n\nScore by capability:\nocr: 50.0 (2 samples)\n")
    assert json.loads((tmp_path / "r.json").read_text())["value"] == 50.0


def test_grades_of_another_form_are_an_error(put):
    words = ["--annotation-file", put("mm-vet.json", SAMPLES), "--result-file", put("g.json", {"v1_0": "an answer"})]
    with pytest.raises(SystemExit, match=r"g\.json, question 'v1_0': expected a JSON object"):
        main(["score", "mmvet", *words])
