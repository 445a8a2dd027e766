"""Score answers to SEED-Bench and write them in the form that its leaderboard takes."""

import argparse
import json

from llava.command import run_program
from llava.eval.tasks.matching import read_answers
from llava.eval.tasks.seed import eval_files, match_answers, question_key, read_annotation
from llava.records import InputError, replace_file


def convert(args: argparse.Namespace) -> None:
    """Print the accuracies, then write a line ``{question_id, prediction}`` for every annotated question.

    Raises:
        InputError: a question without an answer.
    """
    eval_files(args.result_file, args.annotation_file)
    answers = match_answers(read_answers(args.result_file))
    ids = [question["question_id"] for question in read_annotation(args.annotation_file)["questions"]]
    if lacking := [qid for qid in ids if question_key(qid) not in answers]:
        raise InputError(
            f"{args.result_file}: {len(lacking)} of {len(ids)} questions have no answer, such as {lacking[0]!r}, "
            "but a submission needs all"
        )
    lines = [json.dumps({"question_id": qid, "prediction": answers[question_key(qid)]["text"]}) + "\n" for qid in ids]
    replace_file(args.result_upload_file, "".join(lines))


def build_parser() -> argparse.ArgumentParser:
    """The command line, with LLaVA's flags."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--annotation-file", required=True, help="SEED-Bench.json")
    parser.add_argument("--result-file", required=True, help="answers, one JSON object per line")
    parser.add_argument("--result-upload-file", required=True, help="file to upload")
    return parser


if __name__ == "__main__":
    run_program(build_parser(), convert)
