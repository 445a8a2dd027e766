"""Score answers to ScienceQA, with LLaVA's flags; the rules are in ``llava.eval.tasks.sqa``."""

import argparse
from dataclasses import replace
from functools import partial

from llava.command import Parser, run_program
from llava.eval.results.score import score_given
from llava.eval.tasks.base import Given
from llava.eval.tasks.sqa import PROBLEMS, SPLITS, SQA, judge, score, write_choices, write_halves
from llava.records import local_path


def eval_answers(args: argparse.Namespace) -> None:
    """Score ``args.result_file``."""
    base, split = local_path(args.base_dir), replace(SPLITS, member=args.split)
    pids, problems = split.read(base / SPLITS.path), PROBLEMS.read(base / PROBLEMS.path)
    given = Given(SQA.answers.read(args.result_file), annotations=(pids, problems))
    task = replace(SQA, score=partial(score, options=args.options))
    score_given(task, given, args.output, result_file=args.result_file, base_dir=args.base_dir)
    judged = judge(given.answers, problems, pids, args.options)
    if args.output_file:
        write_halves(judged, args.output_file)
    if args.output_result:
        write_choices(judged, args.output_result)


def build_parser() -> argparse.ArgumentParser:
    """The command line, with LLaVA's flags."""
    parser = Parser(prog="python -m llava.eval.eval_science_qa", description=__doc__)
    parser.add_argument("--base-dir", required=True, help="folder of pid_splits.json and problems.json")
    parser.add_argument("--result-file", required=True, help="answers, one JSON object per line")
    parser.add_argument("--output-file", help="write the right and the wrong answers here")
    parser.add_argument("--output-result", help="write the choice and the text of every answer here")
    parser.add_argument("--split", default="test", help="whose questions are scored")
    parser.add_argument("--options", default="ABCDE", help="letters of the choices")
    parser.add_argument("--output", metavar="FILE.json", help="write the result here as JSON")
    return parser


if __name__ == "__main__":
    run_program(build_parser(), eval_answers)
