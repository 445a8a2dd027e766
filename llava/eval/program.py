"""What every command line of this package shares."""

import logging
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Sequence
from typing import Any

from llava.eval.records import InputError


def run_program(parser: ArgumentParser, program: Callable[[Namespace], Any], argv: Sequence[str] | None = None) -> None:
    """Parse the command line and run ``program`` on it; an error the user can repair ends it without a traceback."""
    logging.basicConfig(format="%(message)s")
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that lacks a character costs no result
    for name in ("llava", "__main__"):
        logging.getLogger(name).setLevel(logging.INFO)
    args = parser.parse_args(argv)
    try:
        program(args)
    except InputError as error:
        sys.exit(f"{parser.prog}: error: {error}")


def at_least(minimum: int) -> Callable[[str], int]:
    """An argparse type: an integer that is not smaller than ``minimum``."""

    def integer(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if value < minimum:
            raise ArgumentTypeError(f"{text!r} is not an integer of at least {minimum}")
        return value

    return integer
