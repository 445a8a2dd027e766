"""The words of a script's command line: what they leave out, and what stands there without its flag."""

import re
from argparse import ArgumentParser
from collections.abc import Sequence

SHARE = re.compile(r"\d*\.?\d+")


def budget_named(words: list[str]) -> list[str]:
    """The words with a flag in front of TOKENS and IMPORTANT_RATIO."""
    if words and words[0].isdecimal():
        ratio = ["--important_ratio"] if words[1:] and SHARE.fullmatch(words[1]) else []
        words = ["--visual_token_num", words[0], *ratio, *words[1:]]
    return words


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
