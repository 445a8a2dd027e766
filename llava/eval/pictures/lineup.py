"""Several pruners side by side: the options of the programs that compare them."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import fields

from llava.asking.load import by_flags, check_options
from llava.flags.model import add_model_args
from llava.pruners import PRUNERS, Pruner, option_names, resolve_pruner
from llava.records import InputError


def add_lineup_args(parser: ArgumentParser, usual: Sequence[str] = (), shares: Sequence[float] = ()) -> None:
    """``add_model_args``, with several names for ``--pruner`` and several budgets.

    Args:
        parser: made with ``conflict_handler="resolve"``, so that these options take the place of the single ones.
        usual, shares: what ``complete`` fills in; without these a pruner has to be named.
    """
    add_model_args(parser)
    group = parser.add_argument_group("pruners to compare")
    names = ["none", *PRUNERS]
    told = f" (default: {' '.join(usual)}, with shares of {' and '.join(map(str, shares))})" * bool(usual)
    options = {"required": not usual, "help": ", ".join(names) + told}
    group.add_argument("--pruner", nargs="+", choices=names, metavar="NAME", **options)
    group.add_argument("--visual_token_num", nargs="+", type=int, default=[], metavar="T", help="tokens kept per tile")
    group.add_argument("--keep_ratio", nargs="+", type=float, default=[], metavar="RATIO", help="share kept, in (0, 1]")


def complete(args: Namespace, usual: Sequence[str], shares: Sequence[float]) -> None:
    """Where no pruner is named, compare these; at these shares of the tokens, unless there is a budget."""
    if args.pruner is None:
        args.pruner = list(usual)
        args.keep_ratio = args.keep_ratio or ([] if args.visual_token_num else list(shares))


def lineup(args: Namespace) -> dict[str, list[Pruner | None]]:
    """The pruners asked for: by name, one for each budget, and None alone for ``none``.

    An option such as ``--important_ratio`` goes to those of the pruners that have it.

    Raises:
        InputError: no budget, a wrong value, as ``check_options``, or an option that none of the pruners has.
    """
    budgets = [{"visual_token_num": tokens} for tokens in args.visual_token_num]
    budgets += [{"keep_ratio": ratio} for ratio in args.keep_ratio]
    if not budgets and set(args.pruner) != {"none"}:
        raise InputError("give --visual_token_num or --keep_ratio, one or several values")
    options = {name: getattr(args, name) for name in option_names() if getattr(args, name) is not None}
    own = {name: {field.name for field in fields(PRUNERS[name])} for name in args.pruner if name != "none"}
    if unread := sorted(set(options).difference(*own.values())):
        raise InputError(f"--{unread[0]} is an option of none of {', '.join(args.pruner)}")
    chosen: dict[str, list[Pruner | None]] = {}
    for name in dict.fromkeys(args.pruner):
        given = {key: value for key, value in options.items() if key in own.get(name, ())}
        try:
            chosen[name] = [None] if name == "none" else [resolve_pruner(name, **budget, **given) for budget in budgets]
        except (TypeError, ValueError) as error:
            raise InputError(by_flags(str(error), vars(args))) from error
        check_options(args, chosen[name][0])
    return chosen
