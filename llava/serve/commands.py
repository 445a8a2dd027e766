"""Lines of a conversation in the terminal that are no questions: they begin with a slash."""

import ast
import re
from typing import Any

from llava.asking.chat import Chat
from llava.pruners import PRUNERS
from llava.records import InputError
from llava.selecting.options import PruningOptions

HELP = """\
/pruner NAME BUDGET [OPTION=VALUE ...]   prune from here on, as in: /pruner divprune 36
    BUDGET is a number of visual tokens per tile, or a share of them such as 0.25 or 25%
    NAME is one of {names}
/pruner none                             show the model every visual token again
/pruner                                  say what prunes now
/help                                    these lines
An empty line ends the conversation."""


def command(chat: Chat, line: str) -> str:
    """Do what a line that begins with a slash says; return what is to be said of it.

    Raises:
        InputError: there is no such command, or it cannot be done; the conversation is as before.
    """
    name, *words = line.split()
    if name == "/help":
        return HELP.format(names=", ".join(PRUNERS))
    if name != "/pruner":
        raise InputError(f"{name} is no command; there are /pruner and /help")
    if words:
        try:
            chat.prune(**pruning(words))
        except (TypeError, ValueError, ImportError) as error:
            raise InputError(f"{line}: {error}; pruning is as before, /help says more") from error
    return said(chat.options)


def pruning(words: list[str]) -> dict[str, Any]:
    """The keywords of ``prune`` that the words behind ``/pruner`` mean.

    Raises:
        InputError: a word that is neither the pruner's name, nor its budget, nor an option.
    """
    name, *rest = words
    keywords: dict[str, Any] = {"pruner": name}
    for place, word in enumerate(rest):
        option, equals, value = word.partition("=")
        if equals:
            keywords[option] = _value(value)
        elif place == 0 and (found := re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)(%?)", word)):
            number, percent = found.groups()
            if percent:
                keywords["keep_ratio"] = float(number) / 100
            else:
                keywords["visual_token_num" if number.isdecimal() else "keep_ratio"] = _value(number)
        else:
            raise InputError(f"{word!r} is neither a budget, such as 36 or 25%, nor OPTION=VALUE")
    return keywords


def said(options: PruningOptions) -> str:
    """One line about what prunes."""
    described = options.describe()
    chosen = {**described["options"], **described["run"]}
    given = "".join(f" {name}={value}" for name, value in chosen.items() if value is not None)
    return f"pruner: {described['pruner']}{given}"


def _value(text: str) -> Any:
    """A number, True, False or None of Python; any other text as it is."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text
