"""Score answers to TextVQA, with LLaVA's flags; the rules are in ``llava.eval.tasks.textvqa``."""

import argparse
from pathlib import Path

from llava.command import Parser, run_program
from llava.eval.results.score import score_given
from llava.eval.tasks.base import Given
from llava.eval.tasks.textvqa import TEXTVQA
from llava.records import InputError, local_path


def eval_answers(args: argparse.Namespace) -> None:
    """Score ``args.result_file`` and every answers file in ``args.result_dir``."""
    files = [Path(args.result_file)] if args.result_file else []
    if args.result_dir:
        files += sorted(local_path(args.result_dir).glob("*.jsonl"))
    if not files:
        raise InputError("no answers: give --result-file, or a --result-dir that holds .jsonl files")
    if args.output and len(files) > 1:
        raise InputError(
            f"--output takes one result, not those of {len(files)} answers files: give --result-file alone"
        )
    annotations = [TEXTVQA.truth[0].read(args.annotation_file)]
    for file in files:
        given = Given(TEXTVQA.answers.read(file), annotations=annotations)
        score_given(TEXTVQA, given, args.output, file.stem, result_file=file, annotation_file=args.annotation_file)


def build_parser() -> argparse.ArgumentParser:
    """The command line, with LLaVA's flags."""
    parser = Parser(prog="python -m llava.eval.eval_textvqa", description=__doc__)
    parser.add_argument("--annotation-file", required=True, help="TextVQA_0.5.1_val.json")
    parser.add_argument("--result-file", help="answers, one JSON object per line")
    parser.add_argument("--result-dir", help="score every .jsonl file in this folder")
    parser.add_argument("--output", metavar="FILE.json", help="write the result here as JSON")
    return parser


if __name__ == "__main__":
    run_program(build_parser(), eval_answers)
