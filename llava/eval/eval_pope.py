"""Score answers to POPE, with LLaVA's flags; the rules are in ``llava.eval.tasks.pope``."""

import argparse

from llava.command import Parser, run_program
from llava.eval.results.score import score_given
from llava.eval.tasks.base import Given
from llava.eval.tasks.pope import POPE, read_labels


def eval_answers(args: argparse.Namespace) -> None:
    """Score ``args.result_file``."""
    questions = POPE.questions.read(args.question_file)
    given = Given(POPE.answers.read(args.result_file), questions, read_labels(args.annotation_dir, questions))
    files = {"result_file": args.result_file, "question_file": args.question_file}
    score_given(POPE, given, args.output, **files, annotation_dir=args.annotation_dir)


def build_parser() -> argparse.ArgumentParser:
    """The command line, with LLaVA's flags."""
    parser = Parser(prog="python -m llava.eval.eval_pope", description=__doc__)
    parser.add_argument("--annotation-dir", required=True, help="folder of coco_pope_CATEGORY.json")
    parser.add_argument("--question-file", required=True, help="llava_pope_test.jsonl")
    parser.add_argument("--result-file", required=True, help="answers, one JSON object per line")
    parser.add_argument("--output", metavar="FILE.json", help="write the result here as JSON")
    return parser


if __name__ == "__main__":
    run_program(build_parser(), eval_answers)
