"""Turn answers to MM-Vet into the file that its online evaluator (whyu/MM-Vet_Evaluator) takes."""

import argparse

from llava.command import Parser, run_program
from llava.eval.tasks.base import Given
from llava.eval.tasks.mmvet import MMVET
from llava.records import local_path


def convert(args: argparse.Namespace) -> None:
    """Write ``{"v1_<question_id>": text}``, in the order of the answers."""
    MMVET.submit(Given(MMVET.answers.read(args.src)), local_path(args.dst))


def build_parser() -> argparse.ArgumentParser:
    """The command line, with LLaVA's flags."""
    parser = Parser(description=__doc__)
    parser.add_argument("--src", required=True, help="answers, one JSON object per line")
    parser.add_argument("--dst", required=True, help="file to upload")
    return parser


if __name__ == "__main__":
    run_program(build_parser(), convert)
