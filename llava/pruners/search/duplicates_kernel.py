"""Removal of duplicates in rounds by several Triton programs a tile.

Each program has some of the tokens. All meet twice a round: when all scores are known, and when every token has moved
to its place of the next round.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from llava.pruners.search.together import arrive, launch_options, run_together, wait_for

FEW = 256  # tokens that one program alone searches as fast
PAIRS = 2048  # that a program compares at a time
WARPS = 4


def shape(batch: int, num_tokens: int, processors: int) -> dict[str, int] | None:
    """Constants of a program, which compares ROWS of the tokens with COLUMNS at a time.

    None where the tiles are not worth several programs, or where those do not all run at the same time.
    """
    for rows in (8, 16, 32, 64, 128, 256):
        parts = _parts(num_tokens, rows)
        if num_tokens > FEW and parts > 1 and run_together(batch * parts, WARPS, processors):
            return {"ROWS": rows, "COLUMNS": PAIRS // rows, "num_warps": WARPS}
    return None


def remove_duplicates(
    cosine: Tensor, budget: int, removed_per_round: int, shape: dict[str, int], halves: int | None = None
) -> Tensor:
    """As ``duplicates.least_duplicated``: cosines (B, R, R) -> the tokens that are left (B, budget).

    Args:
        cosine: (B, R, R).
        budget: how many are left.
        removed_per_round: how many at most.
        shape: of a program.
        halves: of a round in one launch, by default those of all. Programs of a launch of one do not wait.
    """
    batch, num_tokens, _ = cosine.shape
    parts, sizes = _parts(num_tokens, shape["ROWS"]), _sizes(num_tokens, budget, removed_per_round)
    pools = torch.empty(2, batch, num_tokens, dtype=torch.int64, device=cosine.device)  # of even and of odd rounds
    scores = cosine.new_empty(batch, num_tokens)
    arrived = torch.zeros(batch, dtype=torch.int32, device=cosine.device)
    last = 2 * len(sizes)
    launch: Any = _remove_duplicates_together[(batch * parts,)]
    at_once = halves or last
    for begin in range(0, last, at_once):
        launch(
            cosine.contiguous(), pools, scores, arrived, num_tokens, batch * num_tokens, budget, removed_per_round,
            parts, sizes[begin // 2], begin, min(last, begin + at_once),
            WAITS=at_once > 1, **shape, **launch_options(at_once > 1),
        )  # fmt: skip
    return pools[len(sizes) % 2, :, :budget]


def _parts(num_tokens: int, rows: int) -> int:
    """How many programs share a tile when each has ``rows`` of its first half."""
    return -(-num_tokens // (2 * rows))


def _sizes(num_tokens: int, budget: int, removed_per_round: int) -> list[int]:
    """How many tokens each round begins with."""
    sizes = []
    while num_tokens > budget:
        sizes.append(num_tokens)
        num_tokens -= min(removed_per_round, num_tokens - budget, (num_tokens + 1) // 2)
    return sizes


# What other programs stored is not read from a multiprocessor's cache (".cg"), which may hold what was there before.


@triton.jit
def _tokens_at(pools, place, here, turn, to_odd):
    """Which tokens are at these places when a round begins; in the first, every token is at its own."""
    token = place
    if turn > 0:
        token = tl.load(pools + (turn % 2) * to_odd + place, mask=here, other=0, cache_modifier=".cg").to(tl.int32)
    return token


@triton.jit
def _duplication(
    cosine, pools, first, here, num_second, turn, num_tokens, to_odd, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """How similar the most similar token of the second half of the pool is to each of these of the first."""
    # Here and below the reduction is behind the loop: several versions of Triton compile none within.
    nearest = tl.full([ROWS, COLUMNS], -float("inf"), tl.float32)
    for start in range(0, num_second, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        other = _tokens_at(pools, 2 * column + 1, column < num_second, turn, to_odd)
        seen = here[:, None] & (column < num_second)[None, :]
        block = tl.load(cosine + first[:, None] * num_tokens + other[None, :], mask=seen, other=-float("inf"))
        nearest = tl.maximum(nearest, block)
    return tl.max(nearest, axis=1)


@triton.jit
def _ahead(scores, place, here, num_first, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """How many are more duplicated than those at these places, or as much and earlier in the pool."""
    score = tl.load(scores + place, mask=here, other=-float("inf"), cache_modifier=".cg")
    wins = tl.full([ROWS, COLUMNS], 0, tl.int32)
    for start in range(0, num_first, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        rivals = column < num_first
        rival = tl.load(scores + column, mask=rivals, other=-float("inf"), cache_modifier=".cg")
        equal_earlier = (rival[None, :] == score[:, None]) & (column[None, :] < place[:, None])
        wins += (((rival[None, :] > score[:, None]) | equal_earlier) & rivals[None, :]).to(tl.int32)
    return tl.sum(wins, axis=1)


@triton.jit(do_not_specialize=["to_odd", "budget", "removed_per_round", "parts", "size", "begin", "end"])
def _remove_duplicates_together(
    cosine, pools, scores, arrived, num_tokens, to_odd, budget, removed_per_round, parts, size, begin, end,
    WAITS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    tile = (tl.program_id(0) // parts).to(tl.int64)
    cosine += tile * num_tokens * num_tokens
    pools += tile * num_tokens
    scores += tile * num_tokens
    place = tl.program_id(0) % parts + parts * tl.arange(0, ROWS)  # parts stay alike while the pool shrinks
    for half in range(begin, end):
        if WAITS:
            wait_for(arrived + tile, half * parts)
        turn = half // 2
        num_first = (size + 1) // 2
        num_second = size // 2
        here = place < num_first
        first = _tokens_at(pools, 2 * place, here, turn, to_odd)
        if half % 2 == 0:
            score = _duplication(cosine, pools, first, here, num_second, turn, num_tokens, to_odd, ROWS, COLUMNS)
            tl.store(scores + place, score, mask=here)
        else:
            ahead = _ahead(scores, place, here, num_first, ROWS, COLUMNS)
            removed = tl.minimum(tl.minimum(removed_per_round, size - budget), num_first)
            second = _tokens_at(pools, 2 * place + 1, place < num_second, turn, to_odd)
            following = pools + ((turn + 1) % 2) * to_odd
            tl.store(following + ahead - removed, first.to(tl.int64), mask=here & (ahead >= removed))
            tl.store(following + num_first - removed + place, second.to(tl.int64), mask=place < num_second)
            size -= removed
        arrive(arrived + tile)
