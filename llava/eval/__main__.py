"""``python -m llava.eval PROGRAM``: the programs of this package that are not called as upstream calls them."""

import importlib
import sys
from types import ModuleType

from llava.command import run_program

PROGRAMS = {
    "doctor": "llava.eval.doctor.data run_doctor",
    "table": "llava.eval.results.summarize summarize",
    "video": "llava.eval.ask.video eval_model",
    "demo": "llava.eval.demo run_demo",
}
SCORERS = ("gqa", "llavabench", "mmbench", "mme", "mmvet", "qbench", "seed", "shapes", "vqa")
USAGE = f"""usage: python -m llava.eval PROGRAM [OPTION...]
  score TASK  score answers; one of: {", ".join(SCORERS)}
  doctor      say whether the data of benchmarks, or a checkpoint, is all there
  table       tables of the results there are
  video       answer questions about videos
  demo        compare the pruners on the embedded model"""


def main(words: list[str]) -> None:
    """Run the program that the first word names, or the first two, on the others."""
    if words[:1] and words[0] in ("-h", "--help"):
        print(USAGE)
        return
    program, function, rest = program_of(words)
    run_program(program.build_parser(), getattr(program, function), rest)


def program_of(words: list[str]) -> tuple[ModuleType, str, list[str]]:
    """The module of the program that ``words`` name, its function, and the words that are its own."""
    if words[:1] == ["score"] and words[1:2] and words[1] in SCORERS:
        module, function, rest = f"llava.eval.tasks.{words[1]}", "eval_answers", words[2:]
    elif words[:1] and words[0] in PROGRAMS:
        module, function = PROGRAMS[words[0]].split()
        rest = words[1:]
    else:
        sys.exit(USAGE)
    return importlib.import_module(module), function, rest


if __name__ == "__main__":
    main(sys.argv[1:])
