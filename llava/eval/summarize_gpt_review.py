"""Print the relative scores of stored GPT-4 reviews, several files at once, with LLaVA's flags."""

import argparse
from pathlib import Path

from llava.command import Parser, run_program
from llava.eval.tasks.base import Given
from llava.eval.tasks.llavabench import REVIEWS, report, score
from llava.eval.tasks.matching import naming_files
from llava.records import InputError, local_path


def review_files(args: argparse.Namespace) -> list[Path]:
    """The files to summarise: those named, or the reviews in a folder, as far as their names fit.

    Raises:
        InputError: none is left.
    """
    files = [local_path(file) for file in args.files]
    if not files and args.dir:
        folder = local_path(args.dir)
        files = [file for file in sorted(folder.glob("*.jsonl")) if "review" in folder.name or is_review(file)]
    files = [file for file in files if all(word in file.stem for word in args.select or [])]
    if args.version is not None:
        files = [file for file in files if version(file) == args.version]
    if not files:
        raise InputError("no review file: give --files, or a --dir that holds some which fit --select and --version")
    return files


def is_review(file: Path) -> bool:
    """Whether a file is named as LLaVA names reviews."""
    return file.name.startswith(("gpt4_text", "review_", "reviews_"))


def version(file: Path) -> str:
    """The version of GPT-4 that wrote the reviews, as far as the name tells."""
    return "0613" if "0613" in file.stem else "0314"


def summarize(args: argparse.Namespace) -> None:
    """Print every file's name and its scores."""
    ignored = set(args.ignore)
    for file in review_files(args):
        reviews = [review for review in REVIEWS.read(file) if str(review["question_id"]) not in ignored]
        if not reviews:
            raise InputError(f"{file}: --ignore leaves no review")
        with naming_files(files=file):
            result = score(Given(reviews))
        print(f"{file.stem.replace('gpt4_text_', '')}\n{report(result)}\n=================================")


def build_parser() -> argparse.ArgumentParser:
    """The command line, with LLaVA's flags."""
    parser = Parser(prog="python -m llava.eval.summarize_gpt_review", description=__doc__)
    parser.add_argument("-d", "--dir", help="folder of review files")
    parser.add_argument("-v", "--version", choices=["0314", "0613"], help="only reviews by this version of GPT-4")
    parser.add_argument("-s", "--select", nargs="*", help="only files whose name holds all these words")
    parser.add_argument("-f", "--files", nargs="*", default=[], help="review files; --dir is not read then")
    parser.add_argument("-i", "--ignore", nargs="*", default=[], help="question ids to leave out")
    return parser


if __name__ == "__main__":
    run_program(build_parser(), summarize)
