"""Turn answers into the predictions file that GQA's own eval.py reads."""

import argparse

from llava.command import Parser, run_program
from llava.eval.tasks.base import Given
from llava.eval.tasks.gqa import GQA
from llava.records import local_path


def convert(args: argparse.Namespace) -> None:
    """Write ``[{questionId, prediction}]``, in the order of the answers."""
    GQA.submit(Given(GQA.answers.read(args.src)), local_path(args.dst))


def build_parser() -> argparse.ArgumentParser:
    """The command line, with LLaVA's flags."""
    parser = Parser(description=__doc__)
    parser.add_argument("--src", required=True, help="answers, one JSON object per line")
    parser.add_argument("--dst", required=True, help="testdev_balanced_predictions.json")
    return parser


if __name__ == "__main__":
    run_program(build_parser(), convert)
