"""Score answers to SEED-Bench and write them in the form that its leaderboard takes."""

import argparse

from llava.command import Parser, run_program
from llava.eval.results.score import score_given
from llava.eval.tasks.base import Given
from llava.eval.tasks.matching import naming_files
from llava.eval.tasks.seed import SEED
from llava.records import local_path


def convert(args: argparse.Namespace) -> None:
    """Print the accuracies, then write a line ``{question_id, prediction}`` for every annotated question."""
    given = Given(SEED.answers.read(args.result_file), annotations=[SEED.truth[0].read(args.annotation_file)])
    score_given(SEED, given, None, result_file=args.result_file, annotation_file=args.annotation_file)
    with naming_files(args.result_file):
        SEED.submit(given, local_path(args.result_upload_file))


def build_parser() -> argparse.ArgumentParser:
    """The command line, with LLaVA's flags."""
    parser = Parser(description=__doc__)
    parser.add_argument("--annotation-file", required=True, help="SEED-Bench.json")
    parser.add_argument("--result-file", required=True, help="answers, one JSON object per line")
    parser.add_argument("--result-upload-file", required=True, help="file to upload")
    return parser


if __name__ == "__main__":
    run_program(build_parser(), convert)
