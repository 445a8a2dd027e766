"""Several pruners at several budgets on one benchmark: one process, one model, one table.

Each image is read once for all of them. Files, records and scores are those of a run for each, so that a sweep goes on
with the answers of runs, and runs with those of a sweep. It is one process whatever CUDA_VISIBLE_DEVICES names, whose
devices share a model that is too large for one.
"""

import io
import os
import shlex
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from llava.command import Parser
from llava.eval.ask.parsers import SWEEP_USAGE, door_parser
from llava.eval.ask.plan import Plan, plan_of
from llava.eval.ask.run import prepare_data, tell_of_speed
from llava.eval.ask.specs import read_specs
from llava.eval.ask.words import given
from llava.records import InputError

ONE_BY_ONE = ("--pruner", "--visual_token_num", "--keep_ratio", "--important_ratio")
"""Flags of a run in whose place a sweep has lists."""
OF_RUNS = ("--engine", "--launcher", "--data-parallel-size", "--profile", "--save-latency", "--num-chunks")
"""Flags of a run that shares nothing with others."""


def sweep(words: Sequence[str], do: Callable[[list[str]], None], environment: Mapping[str, str] = os.environ) -> None:
    """Ask, score and compare.

    Args:
        words: as in ``SWEEP_USAGE``.
        do: runs another program of ``llava.eval``, given its words.
        environment: says where checkpoints and data lie.

    Raises:
        SystemExit: help was asked for, or data is missing.
        InputError: no such benchmark, version or pruner, or an option that a run refuses; as ``ask_together``.
    """
    runs, dry = runs_of(words)
    places = {name: value for name, value in environment.items() if name != "CUDA_VISIBLE_DEVICES"}
    plans = [_plan(run, places) for run in runs]
    if dry:
        print(*(shlex.join(["python", "-m", "llava.eval", "run", *run]) for run in runs), sep="\n")
        return
    prepare_data(plans[0], do)
    tell_of_speed(plans[0])
    from llava.eval.ask.forms import dataset_of, question_file, read_samples  # imports torch, as do those below
    from llava.eval.ask.several import Configuration, ask_together

    form, prepared = plans[0].task.asks, [_prepared(plan) for plan in plans]
    samples, file = read_samples(form, prepared[0][0]), question_file(form, prepared[0][0])
    configurations = [Configuration.of(*each, samples, file) for each in prepared]
    ask_together(configurations, samples, dataset_of(form))
    _score(plans, do)


def runs_of(words: Sequence[str]) -> tuple[list[list[str]], bool]:
    """The words of a run for each pruner and budget, and whether they are to be printed alone.

    Raises:
        InputError: words that are of a run, not of a sweep; a pruner, option or budget that is none.
    """
    own = Parser("python -m llava.eval sweep", SWEEP_USAGE, add_help=False, allow_abbrev=False)
    own.add_argument("--pruners", default="")
    own.add_argument("--budgets", default="")
    own.add_argument("--dry-run", action="store_true")
    if not words or {"-h", "--help"} & {*words}:
        own.print_usage()
        sys.exit()
    args, rest = own.parse_known_args(list(words))
    for option in (*ONE_BY_ONE, *OF_RUNS):
        if given(rest, option):
            instead = "--pruners and --budgets stand for it" if option in ONE_BY_ONE else "give it to a run"
            raise InputError(f"{option} is not for a sweep: {instead}")
    if rest[2:] and not rest[2].startswith("-"):
        raise InputError(f"{rest[2]!r} belongs to no flag; --pruners and --budgets take one word each, as in A,B")
    specs = read_specs(args.pruners, embedded=rest[:1] == ["shapes"])
    budgets = [_budget(text) for text in dict.fromkeys(filter(None, args.budgets.split(",")))]
    if not budgets and any(spec.name != "none" for spec in specs):
        raise InputError("--budgets is missing, such as --budgets 64,128")
    runs = [[*spec.words, *budget] for spec in specs for budget in ([[]] if spec.name == "none" else budgets)]
    return [[*rest[:2], *run, *rest[2:]] for run in runs], args.dry_run


def _budget(text: str) -> list[str]:
    if text.isdecimal():
        return ["--visual_token_num", text]
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise InputError(f"--budgets: {text!r} is neither a number of tokens nor a share of them in (0, 1]")
    return ["--keep_ratio", text]


def _plan(run: Sequence[str], places: Mapping[str, str]) -> Plan:
    """The plan of a run; what is wrong with its words is told in one line, without the usage of its script."""
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return plan_of(run, places)
    except SystemExit as error:
        if not error.code:
            raise
        told, pruner = said.getvalue().partition(": error: ")[2].strip(), run[3]
        raise InputError(told if pruner in told else f"{pruner}: {told}") from None


def _prepared(plan: Plan) -> tuple[Namespace, Any]:
    """Options and pruner of a run, as the program reads them that asks."""
    from llava.eval.ask.forms import prepare_form

    (command,) = plan.asking
    parser = door_parser(plan.task.asks.door)
    return prepare_form(plan.task.asks, parser.parse_args(command[2:]), parser)


def _score(plans: Sequence[Plan], do: Callable[[list[str]], None]) -> None:
    """Score every run, and print one table of all that are scored here."""
    results = []
    for plan in plans:
        if plan.scoring:
            with redirect_stdout(io.StringIO()):  # the table says it
                do(plan.scoring)
        if plan.scoring[:1] == ["score"]:
            results.append(Path(plan.scoring[-1]))
        else:
            print(f"not scored here: submit {plan.submission}")
    if results:
        from llava.eval.results.collect import measured_in
        from llava.eval.results.formats import to_markdown
        from llava.eval.results.table import build_tables

        print(to_markdown(build_tables([each for path in results for each in measured_in(path)])), end="")


def sweep_words(args: Namespace, do: Callable[[list[str]], None]) -> None:
    """``sweep`` as the command line calls it."""
    sweep(args.words, do)
