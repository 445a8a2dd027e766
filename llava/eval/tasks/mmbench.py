"""MMBench, English and Chinese: a question counts if it is right in every rotation of its options.

https://arxiv.org/abs/2307.06281. A question's rows have its index plus multiples of a million. Answers that no rule can
read as an option count as wrong; MMBench's own server would ask GPT about them.
"""

import base64
import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from llava.asking.prompts import OPTION_LETTER, mmbench_query
from llava.eval.tasks.base import Form, Given, Sample, Task, only
from llava.eval.tasks.choices import chosen_option
from llava.eval.tasks.files import DataFile
from llava.eval.tasks.matching import check_same_questions, ids
from llava.eval.tasks.scores import Result, breakdowns, percent, percent_by
from llava.eval.tasks.tables import write_xlsx
from llava.records import InputError

SOURCE = "https://download.openmmlab.com/mmclassification/datasets"
LETTERS = "ABCD"
DROPPED = ("hint", "category", "source", "image", "comment", "l2-category")
"""Columns that the server does not take."""
PREDICTION_COLUMN = 6
ROTATION = 10**6
"""Distance between the indices of a question's rotated copies."""


def check_indices(rows: Sequence[Mapping[str, Any]], file: str, unique: bool = True) -> None:
    """Raise InputError for an index that is no number or, where answers are found again by it, one of two rows."""
    for row in rows:
        if not re.fullmatch("[0-9]{1,18}", str(row["index"])):
            raise InputError(f"{file}, index {str(row['index'])[:20]}: the index is not a number")
    twice = [index for index, count in Counter(int(row["index"]) for row in rows).items() if count > 1]
    if unique and twice:
        raise InputError(f"{file}: two rows have the same index, {twice[0]}")


def _check(rows: Sequence[Mapping[str, Any]], file: str) -> None:
    check_indices(rows, file)
    for row in rows:
        if not options_of(row):
            raise InputError(f"{file}, index {row['index']}: no options")
        if row["answer"] not in list(LETTERS):
            fault = f"the answer is {row['answer']!r}; valid are A to D, and a test split has none"
            raise InputError(f"{file}, index {row['index']}: {fault}")


def options_of(row: Mapping[str, Any]) -> dict[str, str]:
    """The options of a row by their letters, up to the first empty cell."""
    filled = [isinstance(row[letter], str) for letter in LETTERS]
    return {letter: row[letter] for letter in LETTERS[: [*filled, False].index(False)]}


def score(given: Given, benchmark: str = "mmbench") -> Result:
    """Circular accuracy: the share of questions all of whose rows (and rounds, if there are several) are right.

    Raises:
        InputError: rows without an answer, answers without a row, or one row answered twice in one round.
    """
    answers, (rows,) = given.answers, given.annotations
    rows = [row | {"index": int(row["index"]), "options": options_of(row)} for row in rows]
    row_of = {str(row["index"]): row for row in rows}
    asked = [(str(answer["question_id"]), answer.get("round_id", 0)) for answer in answers]
    several_rounds = any(turn for _, turn in asked)
    expected = {index: len(row["options"]) if several_rounds else 1 for index, row in row_of.items()}
    check_same_questions(asked, [(index, turn) for index, turns in expected.items() for turn in range(turns)])
    shown = [row_of[index] for index, _ in asked]
    chosen = [_choice(answer, row) for answer, row in zip(answers, shown, strict=True)]
    correct = [choice == row["answer"] for choice, row in zip(chosen, shown, strict=True)]
    hits = {row["index"] % ROTATION: True for row in shown}
    for row, hit in zip(shown, correct, strict=True):
        hits[row["index"] % ROTATION] &= hit
    details = {"correct": sum(hits.values()), "row_accuracy": percent(correct), "rows": len(correct)}
    details |= _details(shown, correct, hits)
    unread = chosen.count(None)
    return Result.of_scores(benchmark, "circular accuracy", list(hits.values()), answers, unread, details, hits)


def narrow(given: Given) -> Given:
    """The rows that were answered; a question counts if all of these are right."""
    (rows,) = given.annotations
    return replace(given, annotations=[only(rows, ids(given.answers), lambda row: str(int(row["index"])))])


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
    shown = dict(zip(letters, _turned(letters, turn), strict=True))
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
    return "\n".join([*lines, *breakdowns("Circular accuracy", details)])


LETTER_REQUEST = {"en": OPTION_LETTER, "cn": "\n请直接回答选项字母。"}
NO_HINT = ("nan", "none")


def read_asked(path: str | Path) -> list[dict[str, Any]]:
    """The rows of the table: ``index``, ``text`` (hint and question), ``options`` and the ``image`` file's content.

    ``dropped`` is how many options stand behind an empty cell or have another letter than LLaVA's program asks for.

    Raises:
        InputError: no table, a column is missing, or a cell cannot be used; names file and row.
    """
    rows = enumerate(ASKED.read(path), 1)
    return [_row(row, int(row["index"]), f"{path}, row {number} (index {row['index']})") for number, row in rows]


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
    options = list(options_of(row).values())
    dropped = sum(letter in filled for letter in string.ascii_uppercase) - len(options)
    text = hint + filled["question"]
    return {"index": index, "text": text, "options": options, "image": image, "dropped": dropped}


def _turned(entries: Sequence[str], turn: int) -> list[str]:
    """Options or their letters as round ``turn`` shows them: rotated left by it."""
    return [*entries[turn:], *entries[:turn]]


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
        for turn in range(len(row["options"]) if all_rounds else 1):
            options, letters = (_turned(each, turn) for each in (row["options"], LETTERS[: len(row["options"])]))
            shown = [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]
            prompt = "\n".join([row["text"], *shown])
            record = {"question_id": row["index"], "round_id": turn, "prompt": prompt, "text": ""}
            record |= {"options": options, "option_char": letters}
            question = (row["index"], prompt + request, mmbench_query(prompt), row["image"], record)
            samples.append(Sample(*question, lost={"options_dropped": row.get("dropped", 0)}))
    return samples


def submit(given: Given, path: Path) -> None:
    """Write the sheet that the server takes: the benchmark's rows with a column ``prediction``; all must be answered.

    Of several rounds the first, with the options as they stand in the table, is used.
    """
    answers = [answer for answer in given.answers if not answer.get("round_id")]
    rows = [row | {"index": int(row["index"])} for row in given.questions]
    check_same_questions(ids(answers), ids(rows, "index"))
    texts = {str(answer["question_id"]): answer["text"] for answer in answers}
    columns = [name for name in rows[0] if name not in DROPPED]
    columns.insert(PREDICTION_COLUMN, "prediction")
    cells = [row | {"prediction": texts[str(row["index"])]} for row in rows]
    write_xlsx(path, columns, [[cell if cell == cell else None for cell in map(row.get, columns)] for row in cells])


def _table(*columns: str, **more: Any) -> DataFile:
    return DataFile("table.tsv", SOURCE, keys=dict.fromkeys(("index", "question", *columns), str), **more)


ASKED = _table("hint", *LETTERS, "image", check=partial(check_indices, unique=False))
OPTIONS = ("lang", "single_pred_prompt", "all_rounds")
TABLE = Form("model_vqa_mmbench", read_asked, mmbench_samples, options=OPTIONS, plain=True)


def _is_scored(split: str) -> bool:
    return "_dev_" in split


def _task(name: str, title: str, lang: str, **rows: int | None) -> Task:
    splits = {}
    for split in rows:
        file = _table("A", "B", "image", *["answer"] * _is_scored(split))  # the test splits' answers are the server's
        places = {"path": f"{split}.tsv", "source": f"{SOURCE}/{name}/{split}.tsv", "in_data": True}
        splits[split] = replace(file, rows=rows[split], **places)
    usual = next(iter(splits.values()))
    return Task(
        name=name,
        title=title,
        folder=name,
        asks=TABLE,
        asking={"single_pred_prompt": True, "lang": lang},
        splits=splits,
        labels=(replace(_table(*LETTERS, "answer", check=_check), path=usual.path, in_data=True),),
        name_of=lambda answer: None,  # a score is of all rows of a question
        questions=_table("A", "B", check=check_indices),
        submit_reads=("questions",),
        scored=_is_scored,
        narrow=narrow,
        score=partial(score, benchmark=name),
        report=report,
        submit=submit,
        server="https://mmbench.opencompass.org.cn/mmbench-submission",
        upload=".xlsx",
    )


MMBENCH = _task("mmbench", "MMB", "en", mmbench_dev_20230712=4377, mmbench_test_20230712=None)
MMBENCH_CN = _task("mmbench_cn", "MMB-CN", "cn", mmbench_dev_cn_20231003=None, mmbench_test_cn_20231003=None)
