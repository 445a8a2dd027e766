"""Make ScienceQA's llava_test_CQM-I.json: the questions of llava_test_CQM-A.json that have an image, in their order.

The releases of the pruners ask these; no archive holds the file.
"""

import argparse
import json
import logging

from llava.command import run_program
from llava.eval.tasks.matching import read_json
from llava.records import InputError, replace_file

logger = logging.getLogger("llava.scripts.select_image_questions")


def select(args: argparse.Namespace) -> None:
    """Write the questions of ``args.src`` that name an image to ``args.dst``."""
    questions = read_json(args.src, list)
    with_image = [question for question in questions if isinstance(question, dict) and "image" in question]
    if not with_image:
        raise InputError(f"--src {args.src}: none of its {len(questions)} questions has an image")
    replace_file(args.dst, json.dumps(with_image, indent=2))
    logger.info("%s: %d of %d questions have an image", args.dst, len(with_image), len(questions))


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--src", required=True, help="llava_test_CQM-A.json")
    parser.add_argument("--dst", required=True, help="llava_test_CQM-I.json")
    return parser


if __name__ == "__main__":
    run_program(build_parser(), select)
