"""The words of a script's command line: what they leave out, and what stands there without its flag."""

import re
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

SHARE = re.compile(r"\d*\.?\d+")


def explained(words: Sequence[str]) -> Sequence[str]:
    """The words of a task whose help is asked for without a version, with one: all versions take the same words."""
    return [words[0], "v1_5", *words[1:]] if words[1:2] and words[1] in ("-h", "--help") else words


def budget_named(words: list[str]) -> list[str]:
    """The words with a flag in front of TOKENS and IMPORTANT_RATIO."""
    if words and words[0].isdecimal():
        ratio = ["--important_ratio"] if words[1:] and SHARE.fullmatch(words[1]) else []
        words = ["--visual_token_num", words[0], *ratio, *words[1:]]
    return words


def with_budget(own: ArgumentParser, args: Namespace) -> Namespace:
    """The arguments of a run as they are; one of a pruner without a budget is a usage error, told before torch is
    imported."""
    if args.pruner not in (None, "none") and args.visual_token_num is None and args.keep_ratio is None:
        how = "TOKENS, such as 64, or --keep_ratio 0.25; --pruner none keeps all"
        own.error(f"{args.pruner} needs a budget: {how}")
    return args


def device_groups(own: ArgumentParser, devices: Sequence[str], copies: int | None, words: Sequence[str]) -> list[str]:
    """The devices of each copy of an engine, as ``CUDA_VISIBLE_DEVICES`` names them.

    Of the devices that are there, or as many from 0 on as are needed where the environment names none.
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--tensor-parallel-size", type=int, default=1)
    each = parser.parse_known_args(list(words))[0].tensor_parallel_size
    known = list(devices) if list(devices) != ["0"] else [str(device) for device in range((copies or 1) * each)]
    copies = copies or max(1, len(known) // each)
    if copies * each > len(known):
        own.error(f"{copies} times {each} devices are asked for, CUDA_VISIBLE_DEVICES names {len(known)}")
    return [",".join(known[start * each : (start + 1) * each]) for start in range(copies)]


def given(words: Sequence[str], option: str) -> bool:
    """Whether an option stands among the words, as ``--option value`` or ``--option=value``."""
    return any(word.partition("=")[0] == option for word in words)


def pruner_of(words: Sequence[str]) -> str:
    """The pruner that is meant where none is named."""
    return "vispruner" if given(words, "--important_ratio") else "cdpruner"
