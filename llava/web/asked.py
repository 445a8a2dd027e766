"""What comes of a question, piece by piece and in the end."""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event
from typing import TypeVar

import numpy as np

Result = TypeVar("Result")

NONE = "none"
"""The choice of no pruner."""


@dataclass(frozen=True)
class Told:
    """What came of one question, asked in one way.

    Args:
        text: the answer.
        seconds: wall time until its end.
        first: wall time until its first piece; None where none came.
        visual_tokens, tokens_before: visual tokens that the language model read, and those of the whole picture; None
            where nobody says.
        prompt_tokens: all tokens that the language model read; None where nobody says.
        pictures: what the encoder saw, dropped patches faded, (H, W, 3) uint8; empty where that is not known.
        notes: sentences about what else happened.
    """

    text: str
    seconds: float
    first: float | None = None
    visual_tokens: int | None = None
    tokens_before: int | None = None
    prompt_tokens: int | None = None
    pictures: Sequence[np.ndarray] = ()
    notes: Sequence[str] = ()


class Stopped(Exception):
    """Nobody waits for the answer any more."""


def streamed(pool: ThreadPoolExecutor, call: Callable[[Callable[[str], None]], Result]) -> Generator[str, None, Result]:
    """Run ``call(show)`` in a thread of the pool; yield the text shown so far with every piece, return what it returns.

    Closed early, it ends the call at its next piece. Raises what the call raises.
    """
    arrived: SimpleQueue[str | None] = SimpleQueue()
    closed = Event()

    def show(piece: str) -> None:
        if closed.is_set():
            raise Stopped
        arrived.put(piece)

    future = pool.submit(call, show)
    future.add_done_callback(lambda _: arrived.put(None))
    text = ""
    try:
        while (piece := arrived.get()) is not None:
            text += piece
            yield text
        return future.result()
    finally:
        closed.set()
        future.cancel()
