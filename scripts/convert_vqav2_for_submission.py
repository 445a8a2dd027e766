"""Turn answers to VQAv2 into the file that its EvalAI challenge takes.

The challenge wants every question of the test split, also where only those of test-dev were asked: questions that were
not asked get an empty answer.
"""

import argparse
from pathlib import Path

from llava.command import Parser, run_program
from llava.eval.tasks.base import Given
from llava.eval.tasks.matching import naming_files
from llava.eval.tasks.vqav2 import VQAV2
from llava.records import InputError, local_path


def paths(args: argparse.Namespace) -> tuple[Path, Path]:
    """The answers and the file to write: ``--src`` and ``--dst``, or by LLaVA's layout from ``--ckpt``.

    Raises:
        InputError: neither or both ways are used.
    """
    folder = local_path(args.dir)
    if args.ckpt and not (args.src or args.dst):
        answers = folder / "answers" / args.split / args.ckpt / "merge.jsonl"
        return answers, folder / "answers_upload" / args.split / f"{args.ckpt}.json"
    if args.src and args.dst and not args.ckpt:
        return folder / args.src, folder / args.dst
    raise InputError("give either --ckpt (with --split), or --src and --dst")


def convert(args: argparse.Namespace) -> None:
    """Write ``[{question_id, answer}]`` for every question of the test split, with normalised answers."""
    source, destination = paths(args)
    questions = VQAV2.questions.read(local_path(args.dir) / VQAV2.questions.path)
    with naming_files(source):
        VQAV2.submit(Given(VQAV2.answers.read(source), questions), destination)


def build_parser() -> argparse.ArgumentParser:
    """The command line: LLaVA's flags and those of the pruners' releases."""
    parser = Parser(description=__doc__)
    parser.add_argument("--dir", default="./playground/data/eval/vqav2", help="folder of the benchmark")
    parser.add_argument("--ckpt", help="checkpoint, whose answers are DIR/answers/SPLIT/CKPT/merge.jsonl")
    parser.add_argument("--split", default="llava_vqav2_mscoco_test-dev2015", help="whose questions were asked")
    parser.add_argument("--src", help="answers, relative to DIR")
    parser.add_argument("--dst", help="file to upload, relative to DIR")
    return parser


if __name__ == "__main__":
    run_program(build_parser(), convert)
