"""One page on the results of a checkpoint, and the same in words."""

from argparse import ArgumentParser, Namespace

from llava.command import Parser
from llava.eval.results.parsers import add_choice_args, add_page_args
from llava.eval.tasks.files import EVAL_DIR
from llava.records import InputError, local_path, replace_file


def build_parser() -> ArgumentParser:
    """The command line; nothing that takes long is imported for it."""
    doc = """One page on the results of a checkpoint: scores with intervals, times, memory, pictures, and how they were
    made. Read from the answers and results that scripts and sweeps wrote; nothing is measured. Written twice: as a page
    in one file that needs no other, and as Markdown. Neither holds a folder of this machine."""
    parser = Parser(prog="python -m llava.eval report", description=doc)
    where = "folder of questions, answers and results"
    parser.add_argument("eval_dir", nargs="?", default=EVAL_DIR, metavar="RESULTS", help=where)
    parser.add_argument("--html", default="report.html", metavar="FILE", help="the page")
    parser.add_argument("--markdown", default="report.md", metavar="FILE", help="the same in words")
    add_choice_args(parser)
    add_page_args(parser)
    return parser


def run_report(args: Namespace) -> None:
    """Write ``args.html`` and ``args.markdown``, and say where they are.

    Raises:
        InputError: no results, or such as cannot be shown together; matplotlib is not installed; a file that cannot be
            written; a checkpoint that gave none of the answers, or does not load.
    """
    if not local_path(args.eval_dir).is_dir():
        raise InputError(f"RESULTS {args.eval_dir}: no such folder")
    # What reads results takes seconds to import, and who asks for help has none.
    from llava.eval.pictures.contents import outputs_ready, read_report, read_tables
    from llava.eval.pictures.page import to_html
    from llava.eval.pictures.text import to_text

    with outputs_ready(args, args.html, args.markdown):
        report = read_report(*read_tables(args, "RESULTS"), args)
        replace_file(args.html, to_html(report))
        replace_file(args.markdown, to_text(report))
    print(f"report: {args.html} and {args.markdown}")
