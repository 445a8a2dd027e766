import json

import pytest

from llava.eval.__main__ import main
from llava.eval.tasks.base import Given
from llava.eval.tasks.mmbench import MMBENCH, options_of
from llava.records import InputError

M = 10**6
HEADER = "index\tquestion\thint\tA\tB\tC\tD\tanswer\tcategory\timage\tl2-category\n"
ROWS = [
    (1, "Who?", "", "Ann", "Bob", "None", "", "A", "identity", "/9j/", "who"),
    (M + 1, "Who?", "", "Bob", "None", "Ann", "", "C", "identity", "/9j/", "who"),
    (2 * M + 1, "Who?", "", "None", "Ann", "Bob", "", "B", "identity", "/9j/", "who"),
    (2, "What?", "It is small.", "cat", "dog", "", "", "B", "animal", "/9j/", "what"),
    (M + 2, "What?", "It is small.", "dog", "cat", "", "", "A", "animal", "/9j/", "what"),
    (7, "How many?", "", "NA", "2", "3", "4", "A", "count", "/9j/", "what"),
]


def table(rows=ROWS, header=HEADER):
    return header + "".join("\t".join(map(str, row)) + "\n" for row in rows)


@pytest.fixture
def rows(put):
    return read_rows(put("mmbench_dev.tsv", table()))


def read_rows(path):
    return MMBENCH.truth[0].read(path)


def score(given, rows):
    return MMBENCH.score(Given(given, annotations=[rows]))


def answers(*texts):
    return [{"question_id": row[0], "round_id": 0, "text": text} for row, text in zip(ROWS, texts, strict=False)]


def test_a_question_counts_if_all_its_rotations_are_right(rows):
    # the first question is wrong in one rotation of three; 5 of 6 rows are right, and all 3 first rows
    result = score(answers("A", "A", "B", "B", "A", "A"), rows)
    assert (result.benchmark, result.metric, result.count) == ("mmbench", "circular accuracy", 3)
    assert result.value == pytest.approx(200 / 3)
    assert result.details["row_accuracy"] == pytest.approx(500 / 6)
    assert result.details["first_row_accuracy"] == 100.0
    assert result.details["by_l2-category"]["what"] == {"value": 100.0, "count": 2}
    assert result.details["by_category"]["identity"] == {"value": 0.0, "count": 1}


def testoptions_of_called_none_or_na_areoptions_of(rows):
    assert [list(options_of(row)) for row in rows] == [["A", "B", "C"]] * 3 + [["A", "B"]] * 2 + [["A", "B", "C", "D"]]
    assert score(answers("ann", "(C)", "Ann.", "a dog", "A. dog", "na"), rows).value == 100.0


def test_answers_that_no_rule_reads_are_wrong_and_counted(rows):
    result = score(answers("A", "C", "B", "no idea", "A or B", "A"), rows)
    assert (result.value, result.unparsable, result.missing) == (pytest.approx(200 / 3), 2, 0)


def test_the_order_of_the_answers_does_not_matter(rows):
    assert score(answers("A", "A", "B", "B", "A", "A")[::-1], rows).value == pytest.approx(200 / 3)


def test_letters_of_later_rounds_are_turned_back(rows):
    # shown in round r is the list rotated left by r: Ann stands first, then last, then in the middle
    given = [{"question_id": 1, "round_id": turn, "text": text} for turn, text in enumerate(["A", "C", "B"])]
    assert score(given, rows[:1]).value == 100.0
    given[1]["text"] = "Ann"
    assert score(given, rows[:1]).value == 100.0
    given[2]["text"] = "A"
    assert score(given, rows[:1]).value == 0.0


def test_an_unfinished_run_is_refused(rows):
    with pytest.raises(InputError, match=r"1 without an answer, such as \('7', 0\)"):
        score(answers(*"AABBA"), rows)


def test_an_unfinished_last_round_is_refused(rows):
    given = [{"question_id": 1, "round_id": turn, "text": "A"} for turn in range(2)]
    with pytest.raises(InputError, match=r"1 without an answer, such as \('1', 2\)"):
        score(given, rows[:1])


def test_answering_a_row_twice_or_a_row_that_is_not_there_is_an_error(rows):
    with pytest.raises(InputError, match=r"1 answered but not annotated, or answered too often, such as \('1', 0\)"):
        score([*answers(*"AABBAA"), answers("A")[0]], rows)
    with pytest.raises(InputError, match=r"such as \('99', 0\)"):
        score([*answers(*"AABBAA"), {"question_id": 99, "text": "A"}], rows)


def test_a_table_without_categories_or_first_rows_still_gives_the_score(put):
    header = HEADER.replace("category", "kind")
    result = score(answers("A", "A")[1:], read_rows(put("t.tsv", table(ROWS[1:2], header))))
    assert (result.value, list(result.details)) == (0.0, ["correct", "row_accuracy", "rows"])


@pytest.fixture
def command(put):
    return [
        *("--annotation-file", put("mmbench_dev_cn.tsv", table())),
        *("--result-file", put("answers.jsonl", answers("A", "A", "B", "B", "A", "A"))),
    ]


def test_the_program_prints_and_writes(command, tmp_path, capsys):
    main(["score", "mmbench_cn", *command, "--output", str(tmp_path / "r.json")])
    printed = capsys.readouterr().out.splitlines()
    assert printed[:3] == [
        "Circular accuracy: 66.67% (2 of 3 questions)",
        "Row accuracy: 83.33% (6 rows)",
        "First-row accuracy: 100.00%",
    ]
    assert "what: 100.00% (2 questions)" in printed
    assert json.loads((tmp_path / "r.json").read_text())["benchmark"] == "mmbench_cn"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (table([row[:7] for row in ROWS], "index\tquestion\thint\tA\tB\tC\tD\n"), "no column answer"),
        (table([*ROWS, ROWS[0]]), "two rows have the same index"),
        (table([("x", *ROWS[0][1:])]), "index x: the index is not a number"),
        (table([(1, "Who?", "", "a", "b", "", "", "E", "", "", "")]), "index 1: the answer is 'E'; valid are A to D"),
        (table([(1, "Who?", "", "a", "b", "", "", "", "", "", "")]), "index 1: the answer is nan; valid"),
        (table([(1, "Who?", "", "", "b", "", "", "B", "", "", "")]), "index 1: no options"),
    ],
)
def test_a_table_of_another_form_is_an_error(command, put, content, complaint):
    put("mmbench_dev_cn.tsv", content)
    with pytest.raises(SystemExit, match=rf"mmbench_dev_cn\.tsv.*{complaint}"):
        main(["score", "mmbench_cn", *command])
