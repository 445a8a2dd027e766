"""Visual-token pruners: tensors in, indices out. Of all dependencies, only torch is imported."""

import re
from argparse import ArgumentParser, Namespace
from dataclasses import Field, fields
from inspect import getdoc
from typing import Any, get_args

from llava.pruners.base import BUDGETS, Pruner
from llava.pruners.cdpruner import CDPruner
from llava.pruners.cls_topk import ClsTopK
from llava.pruners.cues import VisualCues
from llava.pruners.divprune import DivPrune
from llava.pruners.eadp import EADP
from llava.pruners.fastv import FastV
from llava.pruners.hiprune import HiPrune
from llava.pruners.holov import HoloV
from llava.pruners.mfpruner import MFPruner
from llava.pruners.mmtok import MMTok
from llava.pruners.prumerge import PruMerge
from llava.pruners.prunesid import PruneSID
from llava.pruners.random import RandomPruner
from llava.pruners.scope import ScopePruner
from llava.pruners.trim import Trim
from llava.pruners.uniform import UniformPruner
from llava.pruners.visionzip import VisionZip
from llava.pruners.vispruner import VisPruner
from llava.pruners.zoo_prune import ZooPrune

__all__ = [
    "PRUNERS",
    "Pruner",
    "VisualCues",
    "add_pruner_args",
    "name_of",
    "option_defaults",
    "option_meanings",
    "option_names",
    "pruner_from_args",
    "resolve_pruner",
]

PRUNERS: dict[str, type[Pruner]] = {
    "cdpruner": CDPruner,
    "divprune": DivPrune,
    "vispruner": VisPruner,
    "mfpruner": MFPruner,
    "random": RandomPruner,
    "uniform": UniformPruner,
    "cls_topk": ClsTopK,
    "visionzip": VisionZip,
    "prumerge": PruMerge,
    "trim": Trim,
    "fastv": FastV,
    "scope": ScopePruner,
    "mmtok": MMTok,
    "eadp": EADP,
    "zoo_prune": ZooPrune,
    "holov": HoloV,
    "prunesid": PruneSID,
    "hiprune": HiPrune,
}


def name_of(pruner: Pruner | None) -> str:
    """The name a pruner is registered under, "none" for None, and the class name of one that is not registered."""
    if pruner is None:
        return "none"
    names = [name for name, cls in PRUNERS.items() if type(pruner) is cls]
    return names[0] if names else type(pruner).__name__


def resolve_pruner(
    pruner: str | Pruner | None = None,
    visual_token_num: int | None = None,
    keep_ratio: float | None = None,
    **options: Any,
) -> Pruner | None:
    """Build the pruner that a user's choice means; None is plain LLaVA.

    Args:
        pruner: a name in ``PRUNERS``, "none", or a pruner, which is returned as it is. None means plain LLaVA unless
            anything else is given: as in the releases, a budget alone means CDPruner, with ``important_ratio``
            VisPruner.
        visual_token_num: tokens kept per tile; this or ``keep_ratio``.
        keep_ratio: share of the tokens kept; this or ``visual_token_num``.
        options: the pruner's own options; None means the default.

    Raises:
        ValueError: for an unknown name, a wrong value, no budget or two, or a budget beside "none" or a pruner.
        TypeError: for an option the pruner does not have.
    """
    budget = {"visual_token_num": visual_token_num, "keep_ratio": keep_ratio}
    given = {name: value for name, value in {**budget, **options}.items() if value is not None}
    if isinstance(pruner, Pruner):
        if given:
            raise ValueError(f"{pruner} is complete; it cannot be combined with {', '.join(given)}")
        return pruner
    implied = pruner is None
    if implied:
        if not given:
            return None
        pruner = "vispruner" if "important_ratio" in given else "cdpruner"
    return _build(pruner, given)


def add_pruner_args(parser: ArgumentParser) -> None:
    """Add ``--pruner``, the two budgets and one flag per option of the registered pruners."""
    group = parser.add_argument_group("visual-token pruning")
    group.add_argument(
        "--pruner",
        choices=["none", *PRUNERS],
        help="default: none; with a budget cdpruner, with --important_ratio vispruner",
    )
    group.add_argument("--visual_token_num", type=int, metavar="T", help="visual tokens kept per tile, 0 or more")
    group.add_argument("--keep_ratio", type=float, metavar="RATIO", help="share of visual tokens kept, in (0, 1]")
    for option in option_names():
        known = {name: field for name, cls in PRUNERS.items() for field in fields(cls) if field.name == option}
        group.add_argument(f"--{option}", **_flag(known))


def pruner_from_args(args: Namespace, parser: ArgumentParser | None = None) -> Pruner | None:
    """Build the pruner that parsed arguments mean; an argument that is absent from ``args`` counts as not given.

    Raises:
        ValueError, TypeError: as ``resolve_pruner``; with a parser, its usage error instead.
    """
    given = {name: getattr(args, name, None) for name in ("pruner", *BUDGETS, *option_names())}
    try:
        return resolve_pruner(**given)
    except (TypeError, ValueError) as error:
        if parser is None:
            raise
        parser.error(re.sub(r"\b(\w+)=(?!\S)", r"--\1", str(error)))


def _build(name: str, given: dict[str, Any]) -> Pruner | None:
    """The pruner of that name with the budget and options given, None for "none"; raises as ``resolve_pruner``."""
    if name not in ("none", *PRUNERS):
        raise ValueError(f"unknown pruner {name!r}; the known ones are {', '.join(['none', *PRUNERS])}")
    valid = {} if name == "none" else option_defaults(PRUNERS[name])
    if foreign := [option for option in given if option not in (*BUDGETS, *valid)]:
        budget = "" if name == "none" else f", and its budget: {' or '.join(BUDGETS)}"
        own = ", ".join(valid) or "none"
        raise TypeError(f"{name} has no option {', '.join(foreign)}; its options are: {own}{budget}")
    if name == "none":
        if given:
            raise ValueError(f"pruner none keeps every token; it cannot be combined with {', '.join(given)}")
        return None
    if not any(budget in given for budget in BUDGETS):
        raise ValueError(f"{name} needs a budget: visual_token_num= or keep_ratio=")
    return PRUNERS[name](**given)


def _flag(known: dict[str, Field]) -> dict[str, Any]:
    """The arguments of an option's flag, from its field in each pruner that has it, by name.

    An option that is on or off, or on in one of several ``forms``, needs no value to be on.
    """
    (field, *_), readers = known.values(), {}
    for name, own in known.items():
        meant = f"{option_meanings(PRUNERS[name]).get(own.name, 'an option')} (default: {shown_default(own.default)})"
        readers.setdefault(meant, []).append(name)
    said = "; ".join(f"{', '.join(names)}: {meant}" for meant, names in readers.items()).replace("%", "%%")
    if "forms" in field.metadata:
        return {"nargs": "?", "const": True, "choices": field.metadata["forms"], "help": said}
    kind = next(iter(get_args(field.type)), field.type)  # float of float | None
    return {"type": kind, "help": said}


def shown_default(value: Any) -> str:
    """A default as a command line tells it."""
    return {"None": "not set", "False": "off"}.get(str(value), str(value))


def option_meanings(cls: type[Pruner]) -> dict[str, str]:
    """What a method's docstring says of its own options, each up to the first colon, semicolon or full stop."""
    _, _, args = (getdoc(cls) or "").partition("\nArgs:\n")
    entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", args.partition("\n\n")[0], re.MULTILINE)
    told = {name: re.split(r"[:;.](?:\s|$)", " ".join(text.split()))[0] for name, text in entries}
    return {name: told[name] for name in option_defaults(cls) if name in told}


def option_defaults(cls: type[Pruner]) -> dict[str, Any]:
    """A method's own options, each with its default."""
    return {field.name: field.default for field in fields(cls) if field.name not in BUDGETS}


def option_names() -> list[str]:
    """Every option of any registered pruner, the budgets not among them."""
    return list(dict.fromkeys(option for cls in PRUNERS.values() for option in option_defaults(cls)))
