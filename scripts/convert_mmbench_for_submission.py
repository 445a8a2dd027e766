"""Turn answers to MMBench into the table that its server takes."""

import argparse

from llava.command import Parser, run_program
from llava.eval.tasks.base import Given
from llava.eval.tasks.matching import naming_files
from llava.eval.tasks.mmbench import MMBENCH
from llava.records import local_path


def convert(args: argparse.Namespace) -> None:
    """Write ``UPLOAD_DIR/EXPERIMENT.xlsx``: the benchmark's rows with a column ``prediction``; all must be answered."""
    source = local_path(args.result_dir) / f"{args.experiment}.jsonl"
    given = Given(MMBENCH.answers.read(source), MMBENCH.questions.read(args.annotation_file))
    with naming_files(result_file=source, annotation_file=args.annotation_file):
        MMBENCH.submit(given, local_path(args.upload_dir) / f"{args.experiment}.xlsx")


def build_parser() -> argparse.ArgumentParser:
    """The command line, with LLaVA's flags."""
    parser = Parser(description=__doc__)
    parser.add_argument("--annotation-file", required=True, help="the benchmark's TSV file")
    parser.add_argument("--result-dir", required=True, help="folder of the answers")
    parser.add_argument("--upload-dir", required=True, help="folder for the file to upload")
    parser.add_argument("--experiment", required=True, help="stem of both files' names")
    return parser


if __name__ == "__main__":
    run_program(build_parser(), convert)
