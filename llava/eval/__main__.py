"""``python -m llava.eval PROGRAM``: the programs of this package that are not called as upstream calls them."""

import importlib
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from functools import partial
from typing import Any

from llava.command import run_program
from llava.eval.tasks import TASKS

PROGRAMS = {
    "doctor": "llava.eval.doctor.data run_doctor",
    "table": "llava.eval.pictures.summarize summarize",
    "published": "llava.eval.results.document print_document",
    "video": "llava.eval.ask.video eval_model",
    "demo": "llava.eval.demo run_demo",
    "calibrate": "llava.eval.ask.calibrate calibrate",
}
SUBMITTED = [task.name for task in TASKS.values() if task.submit]
USAGE = f"""usage: python -m llava.eval PROGRAM [OPTION...]
  run TASK VERSION TOKENS [OPTION...]
               what scripts/VERSION/eval/TASK.sh does: ask, then score; TASK as below, VERSION v1_5 or v1_6
  sweep TASK VERSION --pruners A,B --budgets 64,128 [OPTION...]
               the same for several pruners and budgets in one process, with one table
  score TASK   score answers; one of: {", ".join(TASKS)}
  submit TASK  write answers as the task's server takes them; one of: {", ".join(SUBMITTED)}
  doctor       say whether the data of benchmarks, or a checkpoint, is all there
  table        tables of the results there are
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


def program_of(words: list[str]) -> tuple[ArgumentParser, Callable[[Namespace], Any], list[str]]:
    """The command line of the program that ``words`` name, its function, and the words that are its own."""
    name, task, *_ = [*words, "", ""]
    if name in ("run", "sweep"):
        module = importlib.import_module(f"llava.eval.ask.{name}")
        return module.build_parser(), partial(getattr(module, f"{name}_words"), do=main), words[1:]
    if (name == "score" and task in TASKS) or (name == "submit" and task in SUBMITTED):
        score = importlib.import_module("llava.eval.results.score")
        return getattr(score, f"{name}_parser")(TASKS[task]), getattr(score, f"{name}_answers"), words[2:]
    if name not in PROGRAMS:
        valid = {"score": list(TASKS), "submit": SUBMITTED}.get(name, ["run", "sweep", "score", "submit", *PROGRAMS])
        unknown = f"{name}: unknown benchmark {task!r}" if name in ("score", "submit") else f"unknown program {name!r}"
        sys.exit(f"{USAGE}\n\npython -m llava.eval: error: {unknown}; valid are {', '.join(valid)}")
    module, function = PROGRAMS[name].split()
    program = importlib.import_module(module)
    return program.build_parser(), getattr(program, function), words[1:]


if __name__ == "__main__":
    main(sys.argv[1:])
