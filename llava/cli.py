"""The command ``llava``: one way to the programs of this package. Torch is imported once their words are understood."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import llava
from llava.command import Parser, did_you_mean, later, run_program
from llava.flags.pruning import pruner_names
from llava.records import InputError

PROGRAMS = {
    "ask": ("llava.serve.parser ask_parser", "llava.serve.ask ask"),
    "chat": ("llava.serve.parser talk_parser", "llava.serve.ask chat"),
    "web": ("llava.web.program build_parser", "llava.web.program run_web"),
    "report": ("llava.eval.pictures.report build_parser", "llava.eval.pictures.report run_report"),
    "demo": ("llava.eval.ask.parsers demo_parser", "llava.eval.demo run_demo"),
    "bench": ("llava.bench.parser bench_parser", "llava.bench.__main__ bench"),
    "doctor": ("llava.eval.doctor.program doctor_parser", "llava.eval.doctor.program run_doctor"),
    "convert": ("llava.convert.parser convert_parser", "llava.convert.program convert"),
    "pruners": ("llava.cli pruners_parser", "llava.cli describe"),
}
"""By name, what makes the command line, without torch, and what runs it."""
FIRST = {
    "ask": "llava.serve.parser refuse_missing",
    "chat": "llava.serve.parser refuse_missing",
    "demo": "llava.eval.ask.parsers refuse_pruners",
}
"""What looks at what was named, without torch, before the program is imported."""
COMMANDS = ("ask", "chat", "web", "eval", *list(PROGRAMS)[3:])
USAGE = f"""usage: llava COMMAND [OPTION...]

LLaVA {llava.__version__} with training-free pruners, which drop visual tokens before the language model.

  ask IMAGE QUESTION...          ask about a picture
  chat IMAGE                     talk about a picture
  web                            ask in the browser, with two pruners side by side
  eval TASK VERSION TOKENS       evaluate on a benchmark; score answers, make tables
  report [RESULTS]               one page about results
  demo                           compare pruners on the embedded model
  bench                          measure what pruning costs and saves
  doctor [env|data|checkpoint]   look at what is installed, at data and at a checkpoint
  convert                        turn a checkpoint into Transformers' format, or back
  pruners [NAME...]              say what pruners keep, read and offer

llava COMMAND --help says what a command takes, and llava --version prints the version."""


def main(words: Sequence[str] | None = None) -> None:
    """Run the command that the first word names on the others."""
    words = list(sys.argv[1:] if words is None else words)
    if words[:1] and words[0] in ("-h", "--help"):
        print(USAGE)
    elif words == ["--version"]:
        print(f"llava {llava.__version__}")
    elif words[:1] == ["eval"] and (len(words) == 1 or words[1] in ("-h", "--help")):
        print(eval_usage())
    else:
        run_program(*program_of(words))


def program_of(words: Sequence[str]) -> tuple[ArgumentParser, Callable[[Namespace], Any], list[str]]:
    """The command line that ``words`` name, its function, and the words that are its own.

    A wrong name ends the program.
    """
    if not words:
        _refuse(USAGE, "a command is missing")
    name, *rest = words
    if name not in COMMANDS:
        kind = "option" if name.startswith("-") else "command"
        hint = did_you_mean(name, COMMANDS) or f"; valid are {', '.join(COMMANDS)}"
        _refuse(USAGE, f"unknown {kind} {name!r}{hint}")
    if name == "eval":
        return _evaluation(rest)
    parser, program = PROGRAMS[name]
    command = later(parser)()
    command.prog = f"llava {name}"
    return command, _after(FIRST[name], program) if name in FIRST else later(program), rest


def eval_usage() -> str:
    """What ``llava eval --help`` prints."""
    from llava.eval.__main__ import USAGE

    first, *others = USAGE.replace("python -m llava.eval", "llava eval").splitlines()
    run = "  TASK VERSION TOKENS [OPTION...]\n               as run TASK VERSION TOKENS"
    return "\n".join([first, run, *others, "llava eval TASK VERSION --help and llava eval PROGRAM --help say more."])


def _evaluation(words: Sequence[str]) -> tuple[ArgumentParser, Callable[[Namespace], Any], list[str]]:
    """The program of ``llava.eval`` that is meant: a benchmark's name alone means that it is run."""
    from llava.eval.__main__ import NAMES
    from llava.eval.__main__ import program_of as program_of_eval
    from llava.eval.tasks import TASKS

    if words[0] in TASKS:
        words = ["run", *words]
    if words[0] not in NAMES:
        hint = did_you_mean(words[0], [*NAMES, *TASKS])
        valid = f"programs are {', '.join(NAMES)}; benchmarks are {', '.join(TASKS)}"
        _refuse(eval_usage(), f"eval: {words[0]!r} is no program and no benchmark; {valid}{hint}")
    return program_of_eval(list(words), "llava eval")


def _after(check: str, program: str) -> Callable[[Namespace], Any]:
    """The program, run once the check has found nothing wrong."""

    def run(args: Namespace) -> Any:
        later(check)(args)
        return later(program)(args)

    return run


def _refuse(shown: str, fault: str) -> NoReturn:
    print(f"{shown}\n\nllava: error: {fault}", file=sys.stderr)
    sys.exit(2)


def pruners_parser() -> ArgumentParser:
    """The command line of ``llava pruners``."""
    parser = Parser(description="Say what pruners keep, read and offer.")
    known = ", ".join(pruner_names())
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"all if not given: {known}")
    return parser


def describe(args: Namespace) -> None:
    """Print what ``args.names`` are.

    Raises:
        InputError: a name that is none, before torch is imported.
    """
    known = pruner_names()
    if unknown := [name for name in args.names if name not in known]:
        hint = did_you_mean(unknown[0], known)
        raise InputError(f"unknown pruner {', '.join(unknown)}; the known ones are {', '.join(known)}{hint}")
    from llava.pruners.__main__ import described

    print("\n\n".join(map(described, args.names or known)))
