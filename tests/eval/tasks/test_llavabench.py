import json

import pytest

from llava.command import run_program
from llava.eval import summarize_gpt_review
from llava.eval.__main__ import main
from llava.eval.tasks.base import Given
from llava.eval.tasks.llavabench import LLAVABENCH
from llava.records import InputError

REVIEWS = [
    {"question_id": 0, "category": "llava_bench_conv", "tuple": [8, 6]},
    {"question_id": 1, "category": "llava_bench_conv", "tuple": [10, 9.0]},
    {"question_id": 2, "category": "llava_bench_detail", "tuple": [6, 3]},
]
LINES = ["all 75.0 80.0 60.0", "llava_bench_conv 83.3 90.0 75.0", "llava_bench_detail 50.0 60.0 30.0"]


def score(reviews, question_ids=None):
    return LLAVABENCH.score(Given(reviews, question_ids and [{"question_id": qid} for qid in question_ids]))


def test_the_score_is_the_ratio_of_the_mean_ratings():
    result = score(REVIEWS)
    assert (result.benchmark, result.metric, result.value, result.count) == ("llavabench", "relative score", 75.0, 3)
    assert result.details["by_category"]["llava_bench_conv"] == {
        "value": pytest.approx(100 * 7.5 / 9),
        "reference": 90.0,
        "answer": 75.0,
        "count": 2,
    }
    assert 50 <= result.ci95[0] < 75 < result.ci95[1] <= 90


def test_a_review_that_could_not_be_read_is_reported():
    assert score([*REVIEWS, {"question_id": 3, "category": "llava_bench_conv", "tuple": [-1, -1]}]).unparsable == 1


def test_every_question_must_be_reviewed_once_where_they_are_known():
    assert score(REVIEWS, [2, 1, 0]).count == 3
    with pytest.raises(InputError, match="1 without an answer, such as '3'"):
        score(REVIEWS, [0, 1, 2, 3])


def test_the_means_are_not_rounded_before_they_are_divided(put, capsys):
    # 481 / 60 and 310 / 60: rounded to three digits first they would come to 64.5
    pairs = [[8, 5]] * 49 + [[9, 5]] * 1 + [[8, 6]] * 10
    reviews = [{"question_id": i, "tuple": pair} for i, pair in enumerate(pairs)]
    assert score(reviews).value == pytest.approx(100 * 310 / 481)
    run_program(summarize_gpt_review.build_parser(), summarize_gpt_review.summarize, ["-f", put("r.jsonl", reviews)])
    assert "all 64.4 80.2 51.7" in capsys.readouterr().out


def test_resamples_whose_references_are_rated_nought_are_left_out():
    result = score([{"question_id": 0, "tuple": [8, 4]}, {"question_id": 1, "tuple": [-1, -1]}])
    assert result.value == pytest.approx(100 * 3 / 7) and all(30 < edge < 60 for edge in result.ci95)


@pytest.mark.parametrize("pair", [[0, 5], [-1, -1]])
def test_references_rated_nought_or_unreadable_have_no_score(pair):
    with pytest.raises(InputError, match=f"the mean rating of the references is {pair[0]} in 'all'"):
        score([{"question_id": 0, "tuple": pair}])


def test_the_program_prints_upstreams_lines_and_writes(put, tmp_path, capsys):
    questions = put("questions.jsonl", [{"question_id": i} for i in range(3)])
    words = ["--result-file", put("review.jsonl", REVIEWS), "--question-file", questions]
    main(["score", "llavabench", *words, "--output", str(tmp_path / "r.json")])
    assert capsys.readouterr().out.splitlines() == LINES
    assert json.loads((tmp_path / "r.json").read_text())["value"] == 75.0


@pytest.mark.parametrize("pair", [[8], [8, "6"], [8, 6, 7], [True, 6], [None, 6]])
def test_a_review_without_two_ratings_is_an_error(put, pair):
    words = ["--result-file", put("review.jsonl", [REVIEWS[0], REVIEWS[1] | {"tuple": pair}])]
    with pytest.raises(SystemExit, match=r"review\.jsonl, review 2: expected two ratings"):
        main(["score", "llavabench", *words])


class TestSummary:
    @staticmethod
    def printed(capsys, *words):
        run_program(summarize_gpt_review.build_parser(), summarize_gpt_review.summarize, list(words))
        return capsys.readouterr().out.splitlines()

    def test_names_the_file_above_its_scores(self, put, capsys):
        path = put("gpt4_text_a.jsonl", REVIEWS)
        assert self.printed(capsys, "-f", path) == ["a", *LINES, "================================="]

    def test_takes_the_reviews_of_a_folder_that_fit(self, put, tmp_path, capsys):
        for name in ("gpt4_text_7b_0613", "review_7b", "review_13b", "answers_7b"):
            put(f"bench/{name}.jsonl", REVIEWS)

        def found(*words):
            return self.printed(capsys, "-d", str(tmp_path / "bench"), *words)[:: len(LINES) + 2]

        assert found() == ["7b_0613", "review_13b", "review_7b"]
        assert found("-s", "7b", "-v", "0314") == ["review_7b"]
        with pytest.raises(SystemExit, match="no review file"):
            found("-s", "34b")

    def test_takes_all_files_of_a_folder_of_reviews(self, put, tmp_path, capsys):
        put("reviews/7b.jsonl", REVIEWS)
        assert self.printed(capsys, "-d", str(tmp_path / "reviews"))[0] == "7b"

    def test_leaves_out_ignored_questions(self, put, capsys):
        path = put("r.jsonl", REVIEWS)
        assert self.printed(capsys, "-f", path, "-i", "2")[1] == "all 83.3 90.0 75.0"
        with pytest.raises(SystemExit, match="--ignore leaves no review"):
            self.printed(capsys, "-f", path, "-i", "0", "1", "2")
