"""Ask a LLaVA model the questions of MMBench, English or Chinese; the images are in the table itself.

Columns read are ``index``, ``question``, ``hint``, ``A`` to ``D`` and ``image`` (base64). Only an empty cell is
missing: an option called ``None`` or ``NA`` is an option.
"""

import base64
import string
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.asking.prompts import conv_mode_of_plain_model
from llava.asking.queries import OPTION_LETTER, mmbench_query
from llava.command import run_program
from llava.eval.ask.dataset import Sample
from llava.eval.ask.options import model_name
from llava.eval.ask.program import evaluate, prepare, question_parser
from llava.eval.tasks.tables import indices, read_tsv
from llava.records import InputError, get_chunk, split_list

__all__ = ["eval_model", "get_chunk", "split_list"]

LETTERS = "ABCD"
LETTER_REQUEST = {"en": OPTION_LETTER, "cn": "\n请直接回答选项字母。"}
NO_HINT = ("nan", "none")


def read_rows(path: str | Path) -> list[dict[str, Any]]:
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


def mmbench_samples(rows: Sequence[Mapping[str, Any]], request: str = "", all_rounds: bool = False) -> list[Sample]:
    """Questions as they are asked, the rounds of a row in turn.

    Args:
        rows: from ``read_rows``.
        request: what is asked for below the options, and not recorded.
        all_rounds: ask once per rotation of the options.
    """
    samples = []
    for row in rows:
        for turn, (options, letters) in enumerate(rounds(row["options"], all_rounds)):
            shown = [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]
            prompt = "\n".join([row["text"], *shown])
            record = {"question_id": row["index"], "round_id": turn, "prompt": prompt, "text": ""}
            record |= {"options": options, "option_char": letters}
            question = (row["index"], prompt + request, mmbench_query(prompt), row["image"], record)
            samples.append(Sample(*question, lost={"options_dropped": row.get("dropped", 0)}))
    return samples


def eval_model(args: Any) -> None:
    """Answer the questions of ``args.question_file`` in ``args.answers_file``.

    Args:
        args: the parsed command line, or any object with some of its attributes; the rest take their defaults.

    Raises:
        InputError: unusable options or questions, before the model loads; see ``llava.eval.ask.program.evaluate``.
    """
    args, pruner = prepare(args, build_parser())
    args.conv_mode = conv_mode_of_plain_model(model_name(args), args.conv_mode)
    request = LETTER_REQUEST[args.lang] if args.single_pred_prompt else ""
    samples = mmbench_samples(read_rows(args.question_file), request, args.all_rounds)
    evaluate(args, pruner, samples, args.question_file)


def build_parser() -> ArgumentParser:
    """The command line."""
    parser = question_parser("model_vqa_mmbench", __doc__)
    parser.add_argument("--single-pred-prompt", action="store_true", help="ask for the option's letter alone")
    parser.add_argument("--all-rounds", action="store_true", help="ask once per rotation of the options")
    parser.add_argument("--lang", choices=list(LETTER_REQUEST), default="en", help="of --single-pred-prompt")
    return parser


if __name__ == "__main__":
    run_program(build_parser(), eval_model)
