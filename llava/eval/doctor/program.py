"""``llava doctor``: what is installed, which data there is, whether a checkpoint will load."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from llava.command import Parser
from llava.eval.doctor import data
from llava.eval.doctor.findings import Finding, can_go_on
from llava.eval.tasks.files import EVAL_DIR
from llava.shapes import checkpoint_path

DOC = """Look at what is installed, at the data of benchmarks, or at a checkpoint. Ends with status 1 if something is
wrong (of data, if a benchmark that is named cannot run)."""


def doctor_parser() -> ArgumentParser:
    """The command line."""
    parser = Parser(prog="llava doctor", description=DOC)
    parts = parser.add_subparsers(dest="part", metavar="PART", help="env if not given; PART --help says more")
    told = "versions, devices, extras and folders, for a report of a bug: no name of a person or a machine is told"
    env = parts.add_parser("env", help=told, description=f"Print {told}.")
    env.add_argument("--eval-dir", default=EVAL_DIR, help="where the data of benchmarks lie")
    told = "what is there of each benchmark's data, what is missing, and where to get it"
    data.add_args(parts.add_parser("data", help=told, description=f"Print {told}."))
    told = "whether a folder holds all that loading it takes"
    checkpoint = parts.add_parser("checkpoint", help=told, description=f"Print {told}.")
    checkpoint.add_argument("folder", nargs="?", metavar="FOLDER", help="the embedded model if not given")
    return parser


def run_doctor(args: Namespace) -> None:
    """Print what is found; end with status 1 if something is wrong."""
    if args.part == "data":
        data.run_doctor(args)
    elif args.part == "checkpoint":
        from llava.eval.doctor.checkpoint import diagnose_checkpoint

        folder = args.folder or checkpoint_path()
        _print(f"checkpoint {folder}", diagnose_checkpoint(folder))
    else:
        from llava.eval.doctor.environment import diagnose_environment

        _print("environment", diagnose_environment(getattr(args, "eval_dir", EVAL_DIR)))


def _print(name: str, findings: Sequence[Finding]) -> None:
    problems = sum(finding.is_problem for finding in findings)
    print(f"{name}:", *findings, sep="\n")
    print(f"{problems} of {len(findings)} are wrong" if problems else f"nothing wrong among {len(findings)}")
    if not can_go_on(findings):
        sys.exit(1)
