import json
import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.eval.tasks.scores import (
    Result,
    bootstrap_interval,
    clustered_stderr,
    scores_of,
    wilson_interval,
    write_result,
)
from llava.records import InputError


def test_wilson_agrees_with_values_computed_on_paper():
    # z^2 = 3.8415; centre (p + z^2/2n) / (1 + z^2/n), half width z sqrt(p(1-p)/n + z^2/4n^2) / (1 + z^2/n)
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson_interval(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson_interval(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)


def test_nothing_counted_says_nothing():
    assert wilson_interval(0, 0) == (0.0, 1.0)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_proportion_and_mirrors_when_right_and_wrong_swap(counts):
    correct, count = counts
    low, high = wilson_interval(correct, count)
    assert 0 <= low <= correct / count + 1e-12 and correct / count - 1e-12 <= high <= 1
    assert wilson_interval(count - correct, count) == pytest.approx((1 - high, 1 - low), abs=1e-9)


def test_the_bootstrap_is_reproducible_and_as_wide_as_theory_says():
    scores = [1.0] * 300 + [0.0] * 100
    low, high = bootstrap_interval(scores)
    assert bootstrap_interval(scores) == (low, high)
    assert bootstrap_interval(scores, 50) != bootstrap_interval(scores, 50, seed=1)
    assert (high - low) / 2 == pytest.approx(1.96 * math.sqrt(0.75 * 0.25 / 400), rel=0.1)


def test_equal_scores_leave_no_width():
    assert bootstrap_interval([0.5] * 9) == (0.5, 0.5)
    with pytest.raises(ValueError, match="no scores"):
        bootstrap_interval([])


def test_a_result_is_written_with_the_keys_that_summaries_read(tmp_path):
    write_result(Result("shapes", "accuracy", 50.0, 4, 1, 0, (10.0, 90.0), {"note": 1}), tmp_path / "new" / "r.json")
    assert json.loads((tmp_path / "new" / "r.json").read_text()) == {
        "benchmark": "shapes",
        "metric": "accuracy",
        "value": 50.0,
        "count": 4,
        "missing": 1,
        "unparsable": 0,
        "ci95": [10.0, 90.0],
        "details": {"note": 1},
    }


def test_the_scores_of_many_questions_stand_in_one_line_of_the_file(tmp_path):
    answers = [{"text": "a"}, {"text": ""}, {"text": "b"}]
    result = Result.of_scores("gqa", "accuracy", [True, False, 0.3], answers, 1, {"note": 1}, ["7", ("8", "x"), 9])
    assert result.scores == {"7": 1.0, "8/x": 0.0, "9": 0.3}
    write_result(result, tmp_path / "r.json", setting={"pruner": "none"})
    text = (tmp_path / "r.json").read_text()
    assert json.loads(text)["scores"] == result.scores and json.loads(text)["setting"] == {"pruner": "none"}
    assert text.endswith('},\n  "scores": {"7": 1.0, "8/x": 0.0, "9": 0.3}\n}\n')


def test_questions_that_share_a_name_have_no_scores_of_their_own():
    assert scores_of(["a", "a"], [1, 0]) == {} and scores_of([], [1, 0]) == {}
    with pytest.raises(ValueError, match=r"zip\(\)"):
        scores_of(["a"], [1, 0])


def test_a_result_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(InputError, match="cannot write"):
        write_result(Result("shapes", "accuracy", 50.0, 4, 0, 0, (0.0, 1.0)), tmp_path)


def test_without_clusters_the_error_is_the_ordinary_standard_error():
    values = [0.0, 1.0, 1.0, 0.0, 1.0]
    assert clustered_stderr(values, range(5)) == pytest.approx(statistics.stdev(values) / math.sqrt(5))


def test_questions_that_err_together_count_as_one():
    once = [0.0, 1.0, 1.0, 0.0, 1.0]
    thrice = [value for value in once for _ in range(3)]
    images = [name for name in "abcde" for _ in range(3)]
    assert clustered_stderr(thrice, images) == pytest.approx(clustered_stderr(once, list("abcde")))
    with pytest.raises(ValueError, match="two clusters"):
        clustered_stderr([0.0, 1.0], ["a", "a"])
