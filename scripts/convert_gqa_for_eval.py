"""Turn answers into the predictions file that GQA's own eval.py reads."""

import argparse
import json

from llava.command import run_program
from llava.eval.tasks.gqa import prediction
from llava.eval.tasks.matching import by_question, read_answers
from llava.records import replace_file


def convert(args: argparse.Namespace) -> None:
    """Write ``[{questionId, prediction}]``, in the order of the answers."""
    answers = by_question(read_answers(args.src))
    predictions = [{"questionId": qid, "prediction": prediction(answer["text"])} for qid, answer in answers.items()]
    replace_file(args.dst, json.dumps(predictions))


def build_parser() -> argparse.ArgumentParser:
    """The command line, with LLaVA's flags."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--src", required=True, help="answers, one JSON object per line")
    parser.add_argument("--dst", required=True, help="testdev_balanced_predictions.json")
    return parser


if __name__ == "__main__":
    run_program(build_parser(), convert)
