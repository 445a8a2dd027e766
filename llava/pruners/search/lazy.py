"""Greedy choices whose gains only fall: few of them have to be computed anew for the next pick. For the CPU."""

from collections.abc import Callable

import torch
from torch import Tensor

ROWS_AT_ONCE = 128
FEWEST = 32


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
        self._bound = torch.cat([gains(part) for part in torch.arange(candidates).split(ROWS_AT_ONCE)])  # (N,)
        self._left = candidates  # candidates that can be taken, before those that are barred
        self._wait = None if barred is None else self._bound.where(barred, -torch.inf)
        if barred is not None:
            self._bound[barred] = -torch.inf
            self._left -= int(barred.sum())
        self._barred = candidates - self._left
        self._likely = FEWEST
        self._fresh = True

    def take(self) -> int:
        """The candidate that gains most, the first of equals; it is not there any more afterwards."""
        if self._left == 0:
            self._bound = torch.maximum(self._bound, self._wait)
            self._left, self._barred = self._barred, 0
        pick = self._bound.argmax().item() if self._fresh else self._look_again()
        self._bound[pick] = -torch.inf
        self._left -= 1
        self._fresh = False
        return pick

    def _look_again(self) -> int:
        """The candidate that gains most, and ``_bound`` anew of all that had to be looked at."""
        stale, fresh = self._bound, torch.full_like(self._bound, -torch.inf)
        looked_at, size = 0, self._likely
        while True:
            size = min(size, self._left - looked_at)
            for block in stale.topk(size).indices.split(ROWS_AT_ONCE):
                fresh[block] = self._gains(block)
                stale[block] = -torch.inf
            looked_at += size
            self._bound = torch.maximum(stale, fresh)
            pick = self._bound.argmax().item()
            if stale[pick].item() == -torch.inf:
                self._likely = max(FEWEST, looked_at // 2)
                return pick
            size = looked_at
