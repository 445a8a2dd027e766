"""Turn answers to MM-Vet into the file that its online evaluator (whyu/MM-Vet_Evaluator) takes."""

import argparse
import json

from llava.command import run_program
from llava.eval.tasks.matching import by_question, read_answers
from llava.records import replace_file


def convert(args: argparse.Namespace) -> None:
    """Write ``{"v1_<question_id>": text}``, in the order of the answers."""
    answers = by_question(read_answers(args.src))
    texts = {f"v1_{qid}": answer["text"] for qid, answer in answers.items()}
    replace_file(args.dst, json.dumps(texts, indent=2))


def build_parser() -> argparse.ArgumentParser:
    """The command line, with LLaVA's flags."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--src", required=True, help="answers, one JSON object per line")
    parser.add_argument("--dst", required=True, help="file to upload")
    return parser


if __name__ == "__main__":
    run_program(build_parser(), convert)
