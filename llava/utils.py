"""Small helpers: two that programs written for LLaVA import from here, and when a time is noisy."""

import statistics
from collections.abc import Sequence

NOISE = 1.3


def is_noisy(times: Sequence[float], least: float | None = None) -> bool:
    """Whether something else was in the way: the median of times of the same work is more than 1.3 times the least.

    Args:
        least: what the work takes undisturbed; the shortest of the times if not given.
    """
    return statistics.median(times) > NOISE * (min(times) if least is None else least)


def encodable(text: str) -> str:
    """``text`` with a replacement character for each half of a surrogate pair: tokenizers take no such text.

    Bytes of a command line or of a pipe that are not UTF-8 come as such halves.
    """
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def disable_torch_init() -> None:
    """Do nothing; kept because programs written for LLaVA call it before they load a model.

    Transformers 5 builds models on the meta device, so there is no slow initialisation left to skip.
    """
