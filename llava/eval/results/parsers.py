"""The command lines for answers and results: read, and their help printed, before torch is imported."""

from argparse import ArgumentParser
from collections.abc import Sequence

from llava.command import Parser, at_least
from llava.eval.tasks.base import Task
from llava.eval.tasks.files import EVAL_DIR

FLAGS = {"questions": "question_file", "annotations": "annotation_file", "images": "data_dir"}
"""What scorers get beside the answers, by the attributes of the command line."""
FORMATS = ("markdown", "csv", "json", "latex")


def score_parser(task: Task) -> ArgumentParser:
    """The command line that scores answers to ``task``."""
    parser = _parser("score", task, task.score_reads, task.score_takes)
    parser.add_argument("--output", metavar="FILE.json", help="write the result here as JSON")
    part = "the answers are to the first N questions alone, as those of a run with --limit N"
    parser.add_argument("--limit", type=at_least(1), metavar="N", help=part)
    return parser


def submit_parser(task: Task) -> ArgumentParser:
    """The command line that writes answers to ``task`` as a server takes them."""
    parser = _parser("submit", task, task.submit_reads, ())
    parser.add_argument("--output", required=True, metavar=f"FILE{task.upload}", help="write the file to upload here")
    return parser


def _parser(command: str, task: Task, reads: Sequence[str], takes: Sequence[str]) -> ArgumentParser:
    judged = command == "score" and task.verdicts
    does = "Score answers" if command == "score" else "Write answers for the server"
    parser = Parser(prog=f"python -m llava.eval {command} {task.name}", description=f"{does}: {task.title}.")
    parser.set_defaults(task=task, reads=reads)
    of = "what the judge said of the answers" if judged else "answers, one JSON object per line"
    parser.add_argument("--result-file", required=True, help=of)
    helps = {
        "questions": {"help": task.questions.path} if task.questions else {},
        "annotations": {"help": " ".join(file.path for file in task.truth), "nargs": len(task.truth)},
        "images": {"help": task.images.path} if task.images else {},
    }
    for name in (*reads, *takes):
        flag = f"--{FLAGS[name].replace('_', '-')}"
        parser.add_argument(flag, required=name in reads, **helps[name])
    return parser


def table_parser() -> ArgumentParser:
    """The command line of ``python -m llava.eval table``."""
    doc = """Collect the results on disk into one table per checkpoint and layout: pruners and budgets down, benchmarks
    across. Beside what was measured stands what the pruner's paper reports, where it does. With --html, also the page
    that report writes."""
    parser = Parser(prog="python -m llava.eval table", description=doc)
    parser.add_argument("--eval-dir", default=EVAL_DIR, help="questions, answers and results")
    add_choice_args(parser)
    parser.add_argument("--format", choices=FORMATS, default="markdown", help="of the tables")
    parser.add_argument("--output", metavar="FILE", help="write the tables here instead of printing them")
    parser.add_argument("--html", metavar="FILE", help="write one self-contained page here")
    add_page_args(parser)
    return parser


def add_choice_args(parser: ArgumentParser) -> None:
    """Which results are shown."""
    parser.add_argument("--benchmarks", nargs="+", default=[], metavar="NAME", help="columns to show; all if not given")
    parser.add_argument("--published", action="store_true", help="also rows that only a paper has")


def add_page_args(parser: ArgumentParser) -> None:
    """What a page shows besides the tables."""
    page = parser.add_argument_group("page")
    page.add_argument("--samples", type=at_least(0), default=6, help="questions per benchmark on the page")
    page.add_argument("--data-dir", help="images of the questions; where the results are if not given")
    shown = "model to show with which tokens each answer was given; without FOLDER, say which gave answers"
    page.add_argument("--checkpoint", nargs="?", const="", metavar="FOLDER", help=shown)
    page.add_argument("--device", help="for --checkpoint; a GPU if there is one, else the CPU, if not given")


def published_parser() -> ArgumentParser:
    """The command line of ``python -m llava.eval published``."""
    doc = "The papers' numbers as a document: protocol by protocol, every mean with the benchmarks that it is over."
    parser = Parser(prog="python -m llava.eval published", description=doc)
    parser.add_argument("--output", metavar="FILE.md", help="write it here instead of printing it")
    return parser
