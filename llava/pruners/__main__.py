"""``python -m llava.pruners [NAME...]``: what each pruner keeps, reads and offers, and where it comes from."""

import os
import sys
from argparse import ArgumentParser

from llava.pruners import PRUNERS, option_defaults, option_meanings


def described(name: str) -> str:
    """A pruner in a few lines."""
    cls = PRUNERS[name]
    first_line = (cls.__doc__ or "").strip().splitlines()[0]
    meanings = option_meanings(cls)
    defaults = option_defaults(cls).items()
    options = (f"{option} = {value}, {meanings.get(option, 'an option')}" for option, value in defaults)
    licence = cls.licence or "licence not looked up"
    lines = {
        "keeps": first_line.removeprefix("Keep ").rstrip("."),
        "reads": ", ".join(sorted(cls.needs)) or "nothing",
        "at once": "an image" if cls.scope == "image" else "a tile",
        "options": f"\n{' ' * 10}".join(options) or "none",
        "paper": cls.paper or "none",
        "code": f"{cls.source} ({licence})" if cls.source else "none",
    }
    return "\n".join([name, *(f"  {key:8}{text}" for key, text in lines.items())])


def main(words: list[str]) -> None:
    """Describe the pruners that are named on the command line, or all."""
    parser = ArgumentParser(prog="python -m llava.pruners", description="Say what pruners keep, read and offer.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"all if not given: {', '.join(PRUNERS)}")
    names = parser.parse_args(words).names
    if unknown := [name for name in names if name not in PRUNERS]:
        parser.error(f"unknown pruner {', '.join(unknown)}; the known ones are {', '.join(PRUNERS)}")
    try:
        print("\n\n".join(described(name) for name in names or PRUNERS), flush=True)
    except BrokenPipeError:  # who reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main(sys.argv[1:])
