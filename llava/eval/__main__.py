"""``python -m llava.eval PROGRAM``: the programs of this package that are not called as upstream calls them."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from functools import partial
from typing import Any

from llava.command import did_you_mean, later, run_program
from llava.eval.tasks import TASKS

PROGRAMS = {
    "doctor": ("llava.eval.doctor.data build_parser", "llava.eval.doctor.data run_doctor"),
    "table": ("llava.eval.results.parsers table_parser", "llava.eval.pictures.summarize summarize"),
    "report": ("llava.eval.pictures.report build_parser", "llava.eval.pictures.report run_report"),
    "published": ("llava.eval.results.parsers published_parser", "llava.eval.results.document print_document"),
    "video": ("llava.eval.ask.parsers video_parser", "llava.eval.ask.video eval_model"),
    "demo": ("llava.eval.ask.parsers demo_parser", "llava.eval.demo run_demo"),
    "calibrate": ("llava.eval.ask.parsers calibrate_parser", "llava.eval.ask.calibrate calibrate"),
}
"""By name, what makes the command line, without torch, and what runs it."""
NAMES = ("run", "sweep", "score", "submit", *PROGRAMS)
SUBMITTED = [task.name for task in TASKS.values() if task.submit]
CALLED = "python -m llava.eval"
USAGE = f"""usage: python -m llava.eval PROGRAM [OPTION...]
  run TASK VERSION TOKENS [OPTION...]
               what scripts/VERSION/eval/TASK.sh does: ask, then score; TASK as below, VERSION v1_5 or v1_6
  sweep TASK VERSION --pruners A,B --budgets 64,128 [OPTION...]
               the same for several pruners and budgets in one process, with one table
  score TASK   score answers; one of: {", ".join(TASKS)}
  submit TASK  write answers as the task's server takes them; one of: {", ".join(SUBMITTED)}
  doctor       say whether the data of benchmarks, or a checkpoint, is all there
  table        tables of the results there are
  report       a page on them, with times, memory, pictures and how they were made
  published    what papers report, by protocol
  video        answer questions about videos
  demo         compare the pruners on the embedded model
  calibrate    measure what --budget spectral refers to"""


def main(words: list[str]) -> None:
    """Run the program that the first word names, or the first two, on the others."""
    if words[:1] and words[0] in ("-h", "--help"):
        print(USAGE)
        return
    run_program(*program_of(words))


def program_of(words: list[str], called: str = CALLED) -> tuple[ArgumentParser, Callable[[Namespace], Any], list[str]]:
    """The command line of the program that ``words`` name, its function, and the words that are its own.

    Args:
        called: what stands before these words.
    """
    parser, function, rest = _program_of(words, called)
    parser.prog = parser.prog.replace(CALLED, called)
    return parser, function, rest


def _program_of(words: list[str], called: str) -> tuple[ArgumentParser, Callable[[Namespace], Any], list[str]]:
    name, task, *_ = [*words, "", ""]
    if name in ("run", "sweep"):
        parser = later(f"llava.eval.ask.parsers {name}_parser")()
        return parser, partial(later(f"llava.eval.ask.{name} {name}_words"), do=main), words[1:]
    if (name == "score" and task in TASKS) or (name == "submit" and task in SUBMITTED):
        parser = later(f"llava.eval.results.parsers {name}_parser")(TASKS[task])
        return parser, later(f"llava.eval.results.score {name}_answers"), words[2:]
    if name not in PROGRAMS:
        valid = {"score": list(TASKS), "submit": SUBMITTED}.get(name, NAMES)
        unknown = f"{name}: unknown benchmark {task!r}" if name in ("score", "submit") else f"unknown program {name!r}"
        hint = did_you_mean(task if name in ("score", "submit") else name, valid)
        sys.exit(f"{USAGE.replace(CALLED, called)}\n\n{called}: error: {unknown}; valid are {', '.join(valid)}{hint}")
    parser, function = PROGRAMS[name]
    return later(parser)(), later(function), words[1:]


if __name__ == "__main__":
    main(sys.argv[1:])
