"""What every command line of this package shares."""

import logging
import math
import os
import signal
import sys
from argparse import SUPPRESS, Action, ArgumentError, ArgumentParser, ArgumentTypeError, HelpFormatter, Namespace
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from numbers import Integral, Real
from typing import Any, NoReturn

from llava.records import InputError


class _Help(HelpFormatter):
    """Says what a flag is if it is not given, where its own help does not."""

    def _get_help_string(self, action: Action) -> str:
        text, default = action.help or "", action.default
        told = "default" in text or "if not given" in text
        if told or action.required or default in (None, "", SUPPRESS) or isinstance(default, bool):
            return text
        values = default if isinstance(default, list | tuple) else [default]
        shown = " ".join(map(str, values)).replace("%", "%%")
        return f"{text} (default: {shown})" if values else text


class Parser(ArgumentParser):
    """A command line whose help says what is the default, and which tells what a mistyped word is close to."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **{"formatter_class": _Help} | options)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            flags = [flag for action in self._actions for flag in action.option_strings]
            words = [word.partition("=")[0] for word in unknown if word.startswith("-")]
            hint = next(filter(None, (did_you_mean(word, flags) for word in words)), "")
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return found

    def error(self, message: str) -> NoReturn:
        """End the program with the message, which a usage of dozens of flags would hide; one that was written stays."""
        if self.usage:
            super().error(message)
        self.exit(2, f"{self.prog} --help says what it takes\n{self.prog}: error: {message}\n")

    def _check_value(self, action: Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except ArgumentError as error:
            error.message += did_you_mean(value, map(str, action.choices or ()))
            raise


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """The end of an error about a word: which of the valid ones it is close to, "" where it is to none."""
    from difflib import get_close_matches  # not needed where nothing is wrong

    close = get_close_matches(str(word), list(valid), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def later(place: str) -> Callable[..., Any]:
    """A function that is imported when it is called, of which ``place`` says the module and the name."""
    module, name = place.split()

    def call(*args: Any, **options: Any) -> Any:
        return getattr(import_module(module), name)(*args, **options)

    return call


def run_program(parser: ArgumentParser, program: Callable[[Namespace], Any], argv: Sequence[str] | None = None) -> None:
    """Parse the command line and run ``program`` on it; an error the user can repair ends it without a traceback.

    Such an error is an ``InputError``, a file or device that cannot be used, a package that is not installed, or memory
    that is not there. Ctrl-C ends it without one, too.
    """
    _accept_any_text()
    logging.basicConfig(format="%(message)s")
    for name in ("llava", "__main__"):
        logging.getLogger(name).setLevel(logging.INFO)
    args = parser.parse_args(argv)
    try:
        program(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:  # who reads the output has seen enough, as in `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    except (InputError, ImportError, OSError, UnicodeError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _out_of_memory(error):
            raise
        sys.exit(f"{parser.prog}: error: {reason(error)}")


def reason(error: BaseException) -> str:
    """What an error says, on one line; what no words or no file name tell is told by the error's type."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.filename is not None and not isinstance(error, InputError):
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, ValueError | ImportError | FileNotFoundError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _out_of_memory(error: RuntimeError) -> bool:
    return "out of memory" in str(error).lower() or "can't allocate memory" in str(error)


def _accept_any_text() -> None:
    """Let what a terminal or a pipe cannot encode, or sends in another encoding, cost characters, not the program."""
    streams: tuple[Any, ...] = (sys.stdout, sys.stderr)
    for stream in streams:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    given: Any = sys.stdin
    if hasattr(given, "reconfigure"):
        ascii_alone = given.encoding.lower() in ("ascii", "us-ascii", "ansi_x3.4-1968")
        given.reconfigure(encoding="utf-8" if ascii_alone else given.encoding, errors="replace")


@dataclass(frozen=True)
class Number:
    """An argparse type: an integer or a finite number within bounds. ``check`` holds values of Python against them.

    Args:
        kind: int or float.
        minimum, maximum: the bounds, which belong to the range.
        above: whether ``minimum`` does not.
    """

    kind: type[int] | type[float]
    minimum: float
    maximum: float = math.inf
    above: bool = False

    def __call__(self, text: str) -> int | float:
        try:
            value = self.kind(text)
        except ValueError:
            value = math.nan
        if not self._holds(value):
            raise ArgumentTypeError(f"{text!r} is not {self}")
        return value

    def check(self, name: str, value: Any) -> int | float:
        """``value`` as a number of Python, whichever kind of number it is; True and False are none.

        Raises:
            InputError: it is no number, or not within the bounds.
        """
        number = Integral if self.kind is int else Real
        fits = isinstance(value, number) and not isinstance(value, bool) and self._holds(value)
        if not fits:
            raise InputError(f"{name}: {value!r} is not {self}")
        return value if type(value) in (int, float) else self.kind(value)

    def _holds(self, value: Any) -> bool:
        lowest = value > self.minimum if self.above else value >= self.minimum
        return abs(value) != math.inf and lowest and value <= self.maximum

    def __str__(self) -> str:
        kind = "an integer" if self.kind is int else "a number"
        bounds = f"{'above' if self.above else 'of at least'} {self.minimum:g}"
        return f"{kind} {bounds}" + ("" if self.maximum == math.inf else f" and at most {self.maximum:g}")


def at_least(minimum: int) -> Number:
    """An argparse type: an integer that is not smaller than ``minimum``."""
    return Number(int, minimum)


SEED = Number(int, 0, 2**63 - 1)
SHARE = Number(float, 0, 1, above=True)


def check_values(args: Namespace, parser: ArgumentParser) -> Namespace:
    """Hold the values of ``args`` against the flags of ``parser``, as the command line holds what is typed.

    Returns:
        The same object; numbers of other kinds, such as NumPy's, have become Python's.

    Raises:
        InputError: a value that the flag does not take; names the flag and what it takes.
    """
    for action in parser._actions:
        given = getattr(args, action.dest, None)
        flag = action.option_strings[0] if action.option_strings else action.dest
        values = given if isinstance(given, list) and action.nargs else [given]
        for value in values:
            if value is None:
                continue
            checked = _checked(action, flag, value)
            if values is not given:
                setattr(args, action.dest, checked)
    return args


def _checked(action: Action, flag: str, value: Any) -> Any:
    # Which pruner is asked of the pruners, who take one of theirs as well as its name.
    choices = None if action.choices is None or action.dest == "pruner" else list(action.choices)
    if action.nargs == "?" and action.const is True and value in (True, False):  # on without a value, or off
        return bool(value)
    if choices is not None and not (isinstance(value, str) and value in choices):
        raise InputError(f"{flag}: {value!r} is not one of {', '.join(map(str, choices))}")
    if action.nargs == 0 and value not in (True, False):
        raise InputError(f"{flag}: {value!r} is neither True nor False")
    return action.type.check(flag, value) if isinstance(action.type, Number) else value


def with_defaults(args: Any, parser: ArgumentParser, required: Sequence[str] = ()) -> Namespace:
    """Every option of ``parser``: the value ``args`` has, else the default, which None stands for, too.

    Programs that call ``eval_model`` themselves pass any object with the attributes they know of.

    Args:
        required: flags the parser insists on.

    Raises:
        InputError: a value that the flag does not take.
    """
    defaults = vars(parser.parse_args([word for flag in required for word in (flag, "")]))
    given = {name: getattr(args, name, None) for name in defaults}
    filled = {name: value if given[name] is None else given[name] for name, value in defaults.items()}
    return check_values(Namespace(**filled), parser)
