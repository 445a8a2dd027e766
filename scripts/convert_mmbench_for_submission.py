"""Turn answers to MMBench into the table that its server takes."""

import argparse
from pathlib import Path

from llava.command import run_program
from llava.eval.tasks.matching import check_same_questions, naming_files, read_answers
from llava.eval.tasks.tables import indices, read_tsv, write_xlsx
from llava.records import local_path

DROPPED = ("hint", "category", "source", "image", "comment", "l2-category")
PREDICTION_COLUMN = 6


def convert(args: argparse.Namespace) -> None:
    """Write ``UPLOAD_DIR/EXPERIMENT.xlsx``: the benchmark's rows with a column ``prediction``; all must be answered.

    Of several rounds the first, with the options as they stand in the table, is used.
    """
    source = local_path(args.result_dir) / f"{args.experiment}.jsonl"
    table = read_tsv(args.annotation_file, ["index", "question", "A", "B"], without=DROPPED)
    table["index"] = indices(table["index"], args.annotation_file)
    answers = [answer for answer in read_answers(source) if not answer.get("round_id")]
    with naming_files(result_file=source, annotation_file=args.annotation_file):
        check_same_questions((str(answer["question_id"]) for answer in answers), map(str, table["index"]))
    texts = {str(answer["question_id"]): answer["text"] for answer in answers}
    predictions = [texts[str(index)] for index in table["index"]]
    table.insert(min(PREDICTION_COLUMN, len(table.columns)), "prediction", predictions)
    rows = table.astype(object).where(table.notna(), None).values.tolist()
    write_xlsx(Path(args.upload_dir) / f"{args.experiment}.xlsx", list(table.columns), rows)


def build_parser() -> argparse.ArgumentParser:
    """The command line, with LLaVA's flags."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--annotation-file", required=True, help="the benchmark's TSV file")
    parser.add_argument("--result-dir", required=True, help="folder of the answers")
    parser.add_argument("--upload-dir", required=True, help="folder for the file to upload")
    parser.add_argument("--experiment", required=True, help="stem of both files' names")
    return parser


if __name__ == "__main__":
    run_program(build_parser(), convert)
