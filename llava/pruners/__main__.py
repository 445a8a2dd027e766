"""``python -m llava.pruners [NAME...]``: what each pruner keeps, reads and offers, and where it comes from."""

import os
import sys

from llava.pruners import PRUNERS, option_defaults


def described(name: str) -> str:
    """A pruner in a few lines."""
    cls = PRUNERS[name]
    first_line = cls.__doc__.strip().splitlines()[0]
    options = (f"{option} = {default}" for option, default in option_defaults(cls).items())
    licence = cls.licence or "licence not looked up"
    lines = {
        "keeps": first_line.removeprefix("Keep ").rstrip("."),
        "reads": ", ".join(sorted(cls.needs)) or "nothing",
        "at once": "an image" if cls.scope == "image" else "a tile",
        "options": ", ".join(options) or "none",
        "paper": cls.paper or "none",
        "code": f"{cls.source} ({licence})" if cls.source else "none",
    }
    return "\n".join([name, *(f"  {key:8}{text}" for key, text in lines.items())])


def main(names: list[str]) -> None:
    """Describe the pruners of these names, or all."""
    if unknown := [name for name in names if name not in PRUNERS]:
        sys.exit(f"unknown pruner {', '.join(unknown)}; the known ones are {', '.join(PRUNERS)}")
    try:
        print("\n\n".join(described(name) for name in names or PRUNERS), flush=True)
    except BrokenPipeError:  # who reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main(sys.argv[1:])
