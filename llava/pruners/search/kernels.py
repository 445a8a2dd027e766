"""The pruners' search loops as Triton kernels: the whole loop in one launch.

A loop of torch operations on a GPU waits for a launch at every step. Here the state of a tile stays in the registers of
one program; what is passed from step to step lies in the cache of its multiprocessor. Where that is too much for one,
several programs share a tile (``greedy_kernel``, ``duplicates_kernel``). Needs the optional dependency Triton; each
function returns what the torch loop beside it returns, for at most ``LARGEST_TILE`` tokens.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from llava.pruners.search import duplicates_kernel, greedy_kernel
from llava.pruners.search.together import multiprocessors

LARGEST_TILE = 4096


def greedy_map(kernel: Tensor, budget: int) -> tuple[Tensor, Tensor]:
    """As ``dpp.pivots``: a kernel (B, N, N) -> the picks and their gains, both (B, budget).

    From the first gain that is not positive on, the picks mean nothing.
    """
    batch, num_tokens, _ = kernel.shape
    if shared := greedy_kernel.shape(batch, num_tokens, budget, multiprocessors(kernel.device)):
        return greedy_kernel.greedy_map(kernel, budget, shared)
    factor = kernel.new_empty(batch, budget, num_tokens)
    picks = torch.empty(batch, budget, dtype=torch.int64, device=kernel.device)
    gains = kernel.new_empty(batch, budget)
    launch: Any = _greedy_map[(batch,)]
    launch(kernel.contiguous(), factor, picks, gains, num_tokens, budget, **greedy_map_shape(num_tokens))
    return picks, gains


def farthest_points(distance: Tensor, first: Tensor, budget: int, weight: Tensor | None = None) -> Tensor:
    """As ``farthest.farthest_points``: distances (B, N, N) and the first picks (B, 1) -> all picks (B, budget)."""
    batch, num_tokens, _ = distance.shape
    picks = torch.empty(batch, budget, dtype=torch.int64, device=distance.device)
    shape = farthest_points_shape(num_tokens, weight is not None)
    weight = distance if weight is None else weight.contiguous()  # not read where there is none
    launch: Any = _farthest_points[(batch,)]
    launch(distance.contiguous(), first.contiguous(), weight, picks, num_tokens, budget, **shape)
    return picks


def remove_duplicates(cosine: Tensor, budget: int, removed_per_round: int) -> Tensor:
    """As ``duplicates.least_duplicated``: cosines (B, R, R) -> the tokens that are left (B, budget)."""
    batch, num_tokens, _ = cosine.shape
    if shared := duplicates_kernel.shape(batch, num_tokens, multiprocessors(cosine.device)):
        return duplicates_kernel.remove_duplicates(cosine, budget, removed_per_round, shared)
    pool = torch.arange(num_tokens, device=cosine.device).repeat(batch, 1)
    scores = cosine.new_empty(batch, num_tokens)
    launch: Any = _remove_duplicates[(batch,)]
    shape = remove_duplicates_shape(num_tokens)
    launch(cosine.contiguous(), pool, scores, num_tokens, budget, removed_per_round, **shape)
    return pool[:, :budget]


# Shapes of programs that have a tile for themselves: its state, and what is read at a time, fit the registers of one
# multiprocessor. A program is compiled once for all budgets.


def greedy_map_shape(num_tokens: int) -> dict[str, int]:
    """WIDTH numbers of state, ROWS of the factor read at a time."""
    width = int(triton.next_power_of_2(num_tokens))
    return (
        {"WIDTH": width, "ROWS": 8, "num_warps": 8} if width <= 1024 else {"WIDTH": width, "ROWS": 4, "num_warps": 16}
    )


def farthest_points_shape(num_tokens: int, weighted: bool = False) -> dict[str, int]:
    """WIDTH numbers of state."""
    return {"WIDTH": int(triton.next_power_of_2(num_tokens)), "WEIGHTED": weighted, "num_warps": 8}


def remove_duplicates_shape(num_tokens: int) -> dict[str, int]:
    """HALF of the tokens are compared with COLUMNS of the others at a time."""
    half = int(triton.next_power_of_2(max(2, -(-num_tokens // 2))))
    return {"HALF": half, "COLUMNS": min(16, max(4, 8192 // half)), "num_warps": 16}


def built_for(search: str, matrix: Tensor, *rest: Any) -> tuple:
    """What tells a program of the search from its others: its shape, and whether rows start at whole cache lines.

    Args:
        search: name of the function.
        matrix: (B, N, N) what is searched.
        rest: further arguments of that function.
    """
    batch, num_tokens, processors = *matrix.shape[:2], multiprocessors(matrix.device)
    if search == "greedy_map":
        shape = greedy_kernel.shape(batch, num_tokens, rest[0], processors) or greedy_map_shape(num_tokens)
    elif search == "farthest_points":
        shape = farthest_points_shape(num_tokens, weighted=len(rest) > 2 and rest[2] is not None)
    else:
        shape = duplicates_kernel.shape(batch, num_tokens, processors) or remove_duplicates_shape(num_tokens)
    return (*shape.items(), num_tokens % 16 == 0)


@triton.jit(do_not_specialize=["budget"])
def _greedy_map(kernel, factor, picks, gains, num_tokens, budget, WIDTH: tl.constexpr, ROWS: tl.constexpr):
    tile = tl.program_id(0).to(tl.int64)
    kernel += tile * num_tokens * num_tokens
    factor += tile * budget * num_tokens
    token = tl.arange(0, WIDTH)
    inside = token < num_tokens
    gain = tl.load(kernel + token * (num_tokens + 1), mask=inside, other=-float("inf"))
    for step in range(budget):
        best = tl.max(gain, axis=0)
        pick = tl.min(tl.where(gain == best, token, num_tokens - 1), axis=0)  # the lowest of equals
        row = tl.load(kernel + pick * num_tokens + token, mask=inside, other=0.0)
        for start in range(0, step, ROWS):
            earlier = start + tl.arange(0, ROWS)
            known = earlier < step
            of_pick = tl.load(factor + earlier * num_tokens + pick, mask=known, other=0.0)
            places = factor + earlier[:, None] * num_tokens + token[None, :]
            done = tl.load(places, mask=known[:, None] & inside[None, :], other=0.0)
            row -= tl.sum(of_pick[:, None] * done, axis=0)
        row = tl.where(best > 0, row / tl.sqrt(tl.maximum(best, 1e-30)), 0.0)
        tl.store(factor + step * num_tokens + token, row, mask=inside)
        gain = tl.where(token == pick, -float("inf"), gain - row * row)
        tl.store(picks + tile * budget + step, pick.to(tl.int64))
        tl.store(gains + tile * budget + step, best)
        tl.debug_barrier()  # every thread reads the new row in the next step


@triton.jit(do_not_specialize=["budget"])
def _farthest_points(distance, first, weight, picks, num_tokens, budget, WIDTH: tl.constexpr, WEIGHTED: tl.constexpr):
    tile = tl.program_id(0).to(tl.int64)
    distance += tile * num_tokens * num_tokens
    token = tl.arange(0, WIDTH)
    inside = token < num_tokens
    gap = tl.where(inside, float("inf"), -float("inf"))
    if WEIGHTED:
        share = tl.load(weight + tile * num_tokens + token, mask=inside, other=0.0)
    pick = tl.load(first + tile)
    tl.store(picks + tile * budget, pick)
    for step in range(1, budget):
        to_last = tl.load(distance + pick * num_tokens + token, mask=inside, other=-float("inf"))
        gap = tl.minimum(gap, to_last)
        promise = gap
        if WEIGHTED:
            promise = tl.where(gap > -float("inf"), gap * share, gap)
        farthest = tl.max(promise, axis=0)
        pick = tl.min(tl.where(promise == farthest, token, num_tokens - 1), axis=0).to(tl.int64)  # the lowest of equals
        tl.store(picks + tile * budget + step, pick)


@triton.jit(do_not_specialize=["budget", "removed_per_round"])
def _remove_duplicates(
    cosine, pool, scores, num_tokens, budget, removed_per_round, HALF: tl.constexpr, COLUMNS: tl.constexpr
):
    tile = tl.program_id(0).to(tl.int64)
    cosine += tile * num_tokens * num_tokens
    pool += tile * num_tokens
    scores += tile * num_tokens
    place = tl.arange(0, HALF)
    size = num_tokens
    while size > budget:
        num_first = (size + 1) // 2
        num_second = size // 2
        first = tl.load(pool + 2 * place, mask=place < num_first, other=0).to(tl.int32)
        second = tl.load(pool + 2 * place + 1, mask=place < num_second, other=0).to(tl.int32)
        # Both loops reduce behind them, not within: several versions of Triton do not compile a reduction in the loop.
        nearest = tl.full([HALF, COLUMNS], -float("inf"), tl.float32)
        for start in range(0, num_second, COLUMNS):
            column = start + tl.arange(0, COLUMNS)
            other = tl.load(pool + 2 * column + 1, mask=column < num_second, other=0).to(tl.int32)
            seen = (place < num_first)[:, None] & (column < num_second)[None, :]
            block = tl.load(cosine + first[:, None] * num_tokens + other[None, :], mask=seen, other=-float("inf"))
            nearest = tl.maximum(nearest, block)
        score = tl.max(nearest, axis=1)
        tl.store(scores + place, score, mask=place < num_first)
        tl.debug_barrier()  # every thread reads all scores, and writes the pool that all have read
        wins = tl.full([HALF, COLUMNS], 0, tl.int32)
        for start in range(0, num_first, COLUMNS):
            column = start + tl.arange(0, COLUMNS)
            rival = tl.load(scores + column, mask=column < num_first, other=-float("inf"))
            equal_earlier = (rival[None, :] == score[:, None]) & (column[None, :] < place[:, None])
            won = ((rival[None, :] > score[:, None]) | equal_earlier) & (column < num_first)[None, :]
            wins += won.to(tl.int32)
        ahead = tl.sum(wins, axis=1)  # how many are more duplicated, or as much and earlier in the pool
        removed = tl.minimum(tl.minimum(removed_per_round, size - budget), num_first)
        tl.store(pool + ahead - removed, first, mask=(place < num_first) & (ahead >= removed))
        tl.store(pool + num_first - removed + place, second, mask=place < num_second)
        size -= removed
        tl.debug_barrier()  # the next round reads the new pool
