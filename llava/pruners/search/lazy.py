"""Greedy choices whose gains only fall: few of them have to be computed anew for the next pick. For the CPU."""

from collections.abc import Callable

import torch
from torch import Tensor

ROWS_AT_ONCE = 128  # candidates whose gains are computed together, few enough for a cache
FEWEST = 32  # looked at for a pick; computing so many takes no longer than looking twice


class LazyGains:
    """The largest gain of the candidates of one tile, of which most are known by a bound.

    A gain that was computed for an earlier pick bounds what it is now. Candidates are looked at again from the largest
    bound down, until one of them gains at least what the others could: the choice is that of all gains computed anew,
    to the last bit, as long as ``gains`` falls in floating-point numbers, too, and rounds each candidate's alike
    whichever come with it. Sums of ``max(0, benefit - covered)`` do: subtraction, maximum and addition in a fixed
    order keep the order of what they are given.

    Args:
        gains: from candidates (k,) to what each would add now, (k,).
        candidates: how many there are.
        barred: (N,) those that are taken only when no other is left, None where there are none.
    """

    def __init__(self, gains: Callable[[Tensor], Tensor], candidates: int, barred: Tensor | None) -> None:
        self._gains = gains
        self._bound = torch.empty(candidates, dtype=torch.float32, device="cpu")  # (N,), -inf of what cannot be taken
        self._compute(torch.arange(candidates, device="cpu"))
        self._left = candidates  # that can be taken
        self._wait: Tensor | None = None  # (N,) bounds of the barred, and -inf of the others
        if barred is not None:
            self._wait = self._bound.where(barred, -torch.inf)
            self._bound[barred] = -torch.inf
            self._left -= int(barred.sum())
        self._barred = candidates - self._left
        self._size = 0  # looked at for the last pick

    def take(self) -> int:
        """The candidate that gains most, the first of equals; it is not there any more afterwards."""
        if self._left == 0:
            assert self._wait is not None  # some wait: a budget leaves tokens over
            self._bound = torch.maximum(self._bound, self._wait)
            self._left, self._barred = self._barred, 0
        pick = self._best()
        self._bound[pick] = -torch.inf
        self._left -= 1
        return pick

    def _best(self) -> int:
        """The candidate with the largest gain, once no bound is larger."""
        size = max(FEWEST, self._size // 2)
        while True:
            self._size = min(size, self._left)
            candidates = self._bound.topk(self._size).indices
            self._compute(candidates)
            best = int(self._bound.argmax())
            if best in set(candidates.tolist()):
                return best
            size = 2 * self._size

    def _compute(self, candidates: Tensor) -> None:
        """Their gains, which are their bounds from now on."""
        for some in candidates.split(ROWS_AT_ONCE):
            self._bound.index_copy_(0, some, self._gains(some))
