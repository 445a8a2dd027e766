"""What a pruner chooses from at a time, and how much of it stays."""

from llava.pruners import Pruner
from llava.pruners.base import INSIDE_CUES


def resolve_scope(pruner: Pruner, budget_scope: str | None, tiles: int) -> str:
    """Return "tile" or "image": unless told otherwise, an image of several tiles is what the pruner takes it for."""
    if budget_scope is not None:
        return budget_scope
    return pruner.scope if tiles > 1 else "tile"


def budget_of_tiles(pruner: Pruner, length: int, tiles: int) -> int:
    """How many of ``length`` candidates are kept that are of so many tiles, each of which has the pruner's budget."""
    if pruner.visual_token_num is not None:
        return min(length, pruner.visual_token_num * tiles)
    return pruner.budget(length)


def judges_newlines(pruner: Pruner) -> bool:
    """Whether newline tokens are candidates: the language model knows them, the encoder has no cue of them."""
    return bool(pruner.needs) and pruner.needs <= {"embeds", *INSIDE_CUES} and not pruner.merges
