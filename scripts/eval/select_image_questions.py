"""Make ScienceQA's llava_test_CQM-I.json: the questions of llava_test_CQM-A.json that have an image, in their order.

The releases of the pruners ask these; no archive holds the file.
"""

import argparse

from llava.command import run_program
from llava.eval.tasks import sqa


def select(args: argparse.Namespace) -> None:
    """Write the questions of ``args.src`` that name an image to ``args.dst``."""
    sqa.select(args.src, args.dst)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--src", required=True, help="llava_test_CQM-A.json")
    parser.add_argument("--dst", required=True, help="llava_test_CQM-I.json")
    return parser


if __name__ == "__main__":
    run_program(build_parser(), select)
