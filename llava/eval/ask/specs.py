"""Several pruners with options, named in one word of a command line."""

from collections.abc import Sequence
from dataclasses import dataclass

from llava.pruners import PRUNERS, option_names
from llava.pruners.cues import INSIDE_CUES
from llava.records import InputError
from llava.selecting.options import NATIVE, names_of

INSIDE = "prune_layer=2"
"""How a pruner is meant that reads attention of the language model, where no layer is named: as in FastV's paper."""
EMBEDDED = {"hiprune": "object_layer=2"}
"""The same of the embedded model, whose tower has five blocks: 2 of 5 lies where 9 of 24 does."""


@dataclass(frozen=True)
class Spec:
    """A pruner, or ``none``, with options, each as ``name=value``, or ``name`` of one that is on."""

    name: str
    options: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        """The flags of a run that mean it, the budget aside."""
        return ["--pruner", self.name, *(f"--{option}" for option in self.options)]

    def __str__(self) -> str:
        return ", ".join([self.name, *self.options])


def read_specs(text: str, embedded: bool = False) -> list[Spec]:
    """Read names that commas part, each with options behind colons, as in ``none,cdpruner:theta=0.5``.

    ``all`` is every pruner there is, and none; a name with a minus in front is left out of it.

    Args:
        embedded: they are to prune the embedded model.

    Raises:
        InputError: a pruner that is none, or an option of no pruner.
    """
    named = [name.strip() for name in text.split(",") if name.strip()]
    without = {_known(name[1:]) for name in named if name.startswith("-")}
    found: dict[Spec, None] = {}
    for name in named:
        if name == "all":
            found |= {_spec(each, (), embedded): None for each in ("none", *PRUNERS) if each not in without}
        elif not name.startswith("-"):
            pruner, *options = name.split(":")
            found[_spec(_known(pruner), options, embedded)] = None
    if not found:
        raise InputError(f"--pruners is missing: all, or some of none, {', '.join(PRUNERS)}")
    return list(found)


def _known(name: str) -> str:
    if name not in ("none", *PRUNERS):
        raise InputError(f"--pruners: unknown pruner {name!r}; the known ones are none, {', '.join(PRUNERS)}")
    return name


def _spec(name: str, options: Sequence[str], embedded: bool) -> Spec:
    implied = [INSIDE] if name in PRUNERS and PRUNERS[name].needs & INSIDE_CUES else []
    implied += [EMBEDDED[name]] if embedded and name in EMBEDDED else []
    valid = [*option_names(), *names_of(NATIVE)]
    given = {option.partition("=")[0]: option.removesuffix("=True") for option in options}
    if unknown := [option for option in given if option not in valid]:
        raise InputError(f"--pruners: {given[unknown[0]]!r} is no option of a pruner; these are {', '.join(valid)}")
    chosen = {option.partition("=")[0]: option for option in implied} | given
    return Spec(name, tuple(chosen.values()))
