"""Turn answers to VizWiz into the file that its EvalAI challenge takes."""

import argparse

from llava.command import Parser, run_program
from llava.eval.tasks.base import Given
from llava.eval.tasks.matching import naming_files
from llava.eval.tasks.vizwiz import VIZWIZ
from llava.records import local_path


def convert(args: argparse.Namespace) -> None:
    """Write ``[{image, answer}]`` in the order of the questions, with normalised answers; all must be answered."""
    given = Given(VIZWIZ.answers.read(args.result_file), VIZWIZ.questions.read(args.annotation_file))
    with naming_files(result_file=args.result_file, annotation_file=args.annotation_file):
        VIZWIZ.submit(given, local_path(args.result_upload_file))


def build_parser() -> argparse.ArgumentParser:
    """The command line, with LLaVA's flags."""
    parser = Parser(description=__doc__)
    parser.add_argument("--annotation-file", required=True, help="the question file, llava_test.jsonl")
    parser.add_argument("--result-file", required=True, help="answers, one JSON object per line")
    parser.add_argument("--result-upload-file", required=True, help="file to upload")
    return parser


if __name__ == "__main__":
    run_program(build_parser(), convert)
