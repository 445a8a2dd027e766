"""Score answers to MMBench's dev split, English or Chinese: a question counts if it is right in every rotation.

MMBench: https://arxiv.org/abs/2307.06281. A question's rows have its index plus multiples of a million. Answers that
no rule can read as an option count as wrong; MMBench's own server would ask GPT about them.
"""

import argparse
import base64
import string
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.asking.prompts import OPTION_LETTER, mmbench_query
from llava.eval.tasks.base import DataFile, Form, Sample, Task
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

SOURCE = "https://download.openmmlab.com/mmclassification/datasets"
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


LETTER_REQUEST = {"en": OPTION_LETTER, "cn": "\n请直接回答选项字母。"}
NO_HINT = ("nan", "none")


def read_asked(path: str | Path) -> list[dict[str, Any]]:
    """The rows of the table: ``index``, ``text`` (hint and question), ``options`` and the ``image`` file's content.

    ``dropped`` is how many options stand behind an empty cell or have another letter than LLaVA's program asks for.

    Raises:
        InputError: no table, a column is missing, or a cell cannot be used; names file and row.
    """
    table = read_tsv(path, ["index", "question", "hint", *LETTERS, "image"])
    places = enumerate(zip(indices(table["index"], path, unique=False), table.to_dict("records"), strict=True), 1)
    return [_row(row, index, f"{path}, row {number} (index {index})") for number, (index, row) in places]


def _row(row: Mapping[str, Any], index: int, where: str) -> dict[str, Any]:
    filled = {name: value for name, value in row.items() if isinstance(value, str)}
    for name in ("question", "A", "image"):
        if name not in filled:
            raise InputError(f"{where}: the cell of column {name} is empty")
    try:
        image = base64.b64decode("".join(filled["image"].split()), validate=True)
    except ValueError as error:
        raise InputError(f"{where}: the image is not base64 ({error})") from error
    hint = "" if filled.get("hint", "nan").lower() in NO_HINT else f"{filled['hint']}\n"
    count = next((i for i, letter in enumerate(LETTERS) if letter not in filled), len(LETTERS))
    options = [filled[letter] for letter in LETTERS[:count]]
    dropped = sum(letter in filled for letter in string.ascii_uppercase) - count
    text = hint + filled["question"]
    return {"index": index, "text": text, "options": options, "image": image, "dropped": dropped}


def rounds(options: Sequence[str], all_rounds: bool) -> Iterator[tuple[list[str], list[str]]]:
    """Options as displayed and the original letter of each; with ``all_rounds`` every rotation to the left."""
    letters = list(LETTERS[: len(options)])
    for turn in range(len(options) if all_rounds else 1):
        yield [*options[turn:], *options[:turn]], letters[turn:] + letters[:turn]


def mmbench_samples(
    rows: Sequence[Mapping[str, Any]],
    image_folder: str | Path = "",
    lang: str = "en",
    single_pred_prompt: bool = False,
    all_rounds: bool = False,
) -> list[Sample]:
    """Questions as they are asked, the rounds of a row in turn.

    Args:
        rows: from ``TABLE.read``.
        image_folder: not needed, as the rows hold the images.
        lang: ``en`` or ``cn``, of the request for a letter.
        single_pred_prompt: ask for the option's letter alone, which is not recorded.
        all_rounds: ask once per rotation of the options.
    """
    request, samples = LETTER_REQUEST[lang] if single_pred_prompt else "", []
    for row in rows:
        for turn, (options, letters) in enumerate(rounds(row["options"], all_rounds)):
            shown = [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]
            prompt = "\n".join([row["text"], *shown])
            record = {"question_id": row["index"], "round_id": turn, "prompt": prompt, "text": ""}
            record |= {"options": options, "option_char": letters}
            question = (row["index"], prompt + request, mmbench_query(prompt), row["image"], record)
            samples.append(Sample(*question, lost={"options_dropped": row.get("dropped", 0)}))
    return samples


TABLE = Form("model_vqa_mmbench", read_asked, mmbench_samples)


def _split(name: str, rows: int | None = None) -> dict[str, DataFile]:
    columns = ("index", "question", "A", "B", "image")
    columns += ("answer",) if _is_scored(name) else ()  # the test splits' answers are the server's
    source = f"{SOURCE}/{'mmbench_cn' if '_cn_' in name else 'mmbench'}/{name}.tsv"
    return {name: DataFile(f"{name}.tsv", source, rows, dict.fromkeys(columns, str), in_data=True)}


def _is_scored(split: str) -> bool:
    return "_dev_" in split


MMBENCH = Task(
    name="mmbench",
    title="MMB",
    folder="mmbench",
    asks=TABLE,
    asking={"single_pred_prompt": True, "lang": "en"},
    splits=_split("mmbench_dev_20230712", 4377) | _split("mmbench_test_20230712"),
    scored=_is_scored,
    server="https://mmbench.opencompass.org.cn/mmbench-submission",
    upload=".xlsx",
)
MMBENCH_CN = Task(
    name="mmbench_cn",
    title="MMB-CN",
    folder="mmbench_cn",
    asks=TABLE,
    asking={"single_pred_prompt": True, "lang": "cn"},
    splits=_split("mmbench_dev_cn_20231003") | _split("mmbench_test_cn_20231003"),
    scored=_is_scored,
    server="https://mmbench.opencompass.org.cn/mmbench-submission",
    upload=".xlsx",
)
