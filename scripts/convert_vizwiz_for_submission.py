"""Turn answers to VizWiz into the file that its EvalAI challenge takes."""

import argparse
import json

from llava.command import run_program
from llava.eval.m4c_evaluator import EvalAIAnswerProcessor
from llava.eval.tasks.matching import by_question, check_same_questions, naming_files, read_answers
from llava.records import read_jsonl, replace_file

QUESTION_KEYS = {"question_id": (int, str), "image": str}


def convert(args: argparse.Namespace) -> None:
    """Write ``[{image, answer}]`` in the order of the questions, with normalised answers; all must be answered."""
    questions = read_jsonl(args.annotation_file, QUESTION_KEYS)
    answers = by_question(read_answers(args.result_file))
    with naming_files(result_file=args.result_file, annotation_file=args.annotation_file):
        check_same_questions(answers, (str(question["question_id"]) for question in questions))
    normalize = EvalAIAnswerProcessor()
    entries = [
        {"image": question["image"], "answer": normalize(answers[str(question["question_id"])]["text"])}
        for question in questions
    ]
    replace_file(args.result_upload_file, json.dumps(entries))


def build_parser() -> argparse.ArgumentParser:
    """The command line, with LLaVA's flags."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--annotation-file", required=True, help="the question file, llava_test.jsonl")
    parser.add_argument("--result-file", required=True, help="answers, one JSON object per line")
    parser.add_argument("--result-upload-file", required=True, help="file to upload")
    return parser


if __name__ == "__main__":
    run_program(build_parser(), convert)
