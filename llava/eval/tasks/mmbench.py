"""Score answers to MMBench's dev split, English or Chinese: a question counts if it is right in every rotation.

MMBench: https://arxiv.org/abs/2307.06281. A question's rows have its index plus multiples of a million. Answers that
no rule can read as an option count as wrong; MMBench's own server would ask GPT about them.
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from llava.eval.tasks.choices import chosen_option
from llava.eval.tasks.matching import (
    breakdown,
    check_same_questions,
    is_missing,
    naming_files,
    percent,
    percent_by,
    percent_interval,
    publish,
    read_answers,
    scorer_parser,
)
from llava.eval.tasks.scores import Result
from llava.eval.tasks.tables import indices, read_tsv
from llava.records import InputError

LETTERS = "ABCD"
ROTATION = 10**6
"""Distance between the indices of a question's rotated copies."""


def score(answers: Sequence[dict[str, Any]], rows: Sequence[Mapping[str, Any]], lang: str = "en") -> Result:
    """Circular accuracy: the share of questions all of whose rows (and rounds, if there are several) are right.

    Args:
        rows: from ``read_rows``.
        lang: ``en`` or ``cn``; names the benchmark.

    Raises:
        InputError: rows without an answer, answers without a row, or one row answered twice in one round.
    """
    row_of = {str(row["index"]): row for row in rows}
    asked = [(str(answer["question_id"]), answer.get("round_id", 0)) for answer in answers]
    several_rounds = any(turn for _, turn in asked)
    expected = {index: len(row["options"]) if several_rounds else 1 for index, row in row_of.items()}
    check_same_questions(asked, [(index, turn) for index, turns in expected.items() for turn in range(turns)])
    given = [row_of[index] for index, _ in asked]
    chosen = [_choice(answer, row) for answer, row in zip(answers, given, strict=True)]
    correct = [choice == row["answer"] for choice, row in zip(chosen, given, strict=True)]
    hits = {row["index"] % ROTATION: True for row in given}
    for row, hit in zip(given, correct, strict=True):
        hits[row["index"] % ROTATION] &= hit
    missing = sum(map(is_missing, answers))
    return Result(
        benchmark="mmbench_cn" if lang == "cn" else "mmbench",
        metric="circular accuracy",
        value=percent(list(hits.values())),
        count=len(hits),
        missing=missing,
        unparsable=chosen.count(None) - missing,
        ci95=percent_interval(list(hits.values())),
        details={"correct": sum(hits.values()), "row_accuracy": percent(correct), "rows": len(correct)}
        | _details(given, correct, hits),
    )


def _details(rows: Sequence[Mapping[str, Any]], correct: Sequence[bool], hits: Mapping[int, bool]) -> dict[str, Any]:
    """First-row accuracy, and circular accuracy by each kind of category that the table has."""
    details: dict[str, Any] = {}
    if first := [hit for row, hit in zip(rows, correct, strict=True) if row["index"] < ROTATION]:
        details["first_row_accuracy"] = percent(first)
    row_of = {row["index"] % ROTATION: row for row in rows}
    for column in ("l2-category", "category"):
        names = [row_of[question].get(column) for question in hits]
        if all(isinstance(name, str) for name in names):
            details[f"by_{column}"] = percent_by(names, hits.values())
    return details


def _choice(answer: Mapping[str, Any], row: Mapping[str, Any]) -> str | None:
    """The option of ``row`` that an answer means; in round r the options were shown rotated left by r."""
    letters = list(row["options"])
    turn = answer.get("round_id", 0) % len(letters)
    shown = dict(zip(letters, letters[turn:] + letters[:turn], strict=True))
    choice = chosen_option(answer["text"], {letter: row["options"][shown[letter]] for letter in letters})
    return shown.get(choice, choice)


def report(result: Result) -> str:
    """Accuracies, then one line for every category."""
    details = result.details
    lines = [
        f"Circular accuracy: {result.value:.2f}% ({details['correct']} of {result.count} questions)",
        f"Row accuracy: {details['row_accuracy']:.2f}% ({details['rows']} rows)",
    ]
    if "first_row_accuracy" in details:
        lines.append(f"First-row accuracy: {details['first_row_accuracy']:.2f}%")
    for column in ("l2-category", "category"):
        if f"by_{column}" in details:
            lines += ["", f"Circular accuracy by {column}:", *breakdown(details[f"by_{column}"])]
    return "\n".join(lines)


def read_rows(path: str) -> list[dict[str, Any]]:
    """The rows of MMBench's table without the images, each with its ``options`` by letter.

    Raises:
        InputError: no table, a column is missing (a test split has no answers), an index that is no number or occurs
            twice, or a row without options or a valid answer.
    """
    table = read_tsv(path, ["index", "question", *LETTERS, "answer"], without=["image"])
    rows = table.to_dict("records")
    for row, index in zip(rows, indices(table["index"], path), strict=True):
        where, row["index"] = f"{path}, index {index}", index
        filled = [isinstance(row[letter], str) for letter in LETTERS]
        row["options"] = {letter: row[letter] for letter in LETTERS[: [*filled, False].index(False)]}
        if not row["options"]:
            raise InputError(f"{where}: no options")
        if row["answer"] not in list(LETTERS):
            raise InputError(f"{where}: the answer is {row['answer']!r}; valid are A to D, and a test split has none")
    return rows


def eval_answers(args: argparse.Namespace) -> None:
    """Score ``args.result_file``."""
    rows = read_rows(args.annotation_file)
    answers = read_answers(args.result_file)
    with naming_files(result_file=args.result_file, annotation_file=args.annotation_file):
        result = score(answers, rows, args.lang)
    publish(result, report(result), args.output)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = scorer_parser("mmbench", __doc__, "mmbench_dev_20230712.tsv or mmbench_dev_cn_20231003.tsv")
    parser.add_argument("--lang", choices=["en", "cn"], default="en", help="names the benchmark in the result")
    return parser
