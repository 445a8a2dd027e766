"""Several pruners with options, named in one word of a command line."""

from collections.abc import Sequence
from dataclasses import dataclass

from llava.command import did_you_mean
from llava.flags.pruning import NATIVE, inside_pruners, option_names, options_of, pruner_names
from llava.records import InputError

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
            found |= {_spec(each, (), embedded): None for each in ("none", *pruner_names()) if each not in without}
        elif not name.startswith("-"):
            pruner, *options = name.split(":")
            found[_spec(_known(pruner), options, embedded)] = None
    if not found:
        raise InputError(f"--pruners is missing: all, or some of none, {', '.join(pruner_names())}")
    return list(found)


def _known(name: str) -> str:
    known = ["none", *pruner_names()]
    if name not in known:
        hint = did_you_mean(name, known)
        raise InputError(f"--pruners: unknown pruner {name!r}; the known ones are {', '.join(known)}{hint}")
    return name


def _spec(name: str, options: Sequence[str], embedded: bool) -> Spec:
    implied = [INSIDE] if name in inside_pruners() else []
    implied += [EMBEDDED[name]] if embedded and name in EMBEDDED else []
    valid = [*option_names(), *options_of(NATIVE)]
    given = {option.partition("=")[0]: option.removesuffix("=True") for option in options}
    if unknown := [option for option in given if option not in valid]:
        hint = did_you_mean(unknown[0], valid)
        raise InputError(
            f"--pruners: {given[unknown[0]]!r} is no option of a pruner; these are {', '.join(valid)}{hint}"
        )
    chosen = {option.partition("=")[0]: option for option in implied} | given
    return Spec(name, tuple(chosen.values()))
