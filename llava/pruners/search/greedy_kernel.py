"""Greedy search over the kernel of a determinantal point process by several Triton programs a tile.

Each program has some of the columns. All meet once a round: each tells its best token, waits until all have, and reads
which one is picked.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from llava.pruners.search.together import arrive, launch_options, run_together, wait_for

CACHED = 40_000  # numbers of a factor that the cache of one multiprocessor holds: one program alone is as fast
HELD_BY_A_WARP = 2048  # numbers of the factor, in registers


def shape(batch: int, num_tokens: int, budget: int, processors: int) -> dict[str, int] | None:
    """Constants of a program that holds DEPTH rows of the factor for WIDTH columns, and hears PARTS or fewer.

    None where the tiles are not worth several programs, or where those do not all run at the same time.
    """
    depth = max(64, int(triton.next_power_of_2(budget)))
    for width in (32, 64, 128):
        parts, warps = -(-num_tokens // width), max(4, width * depth // HELD_BY_A_WARP)
        if num_tokens * budget > CACHED and warps <= 16 and run_together(batch * parts, warps, processors):
            return {"PARTS": int(triton.next_power_of_2(parts)), "WIDTH": width, "DEPTH": depth, "num_warps": warps}
    return None


def greedy_map(kernel: Tensor, budget: int, shape: dict[str, int], rounds: int | None = None) -> tuple[Tensor, Tensor]:
    """As ``dpp.pivots``: a kernel (B, N, N) -> the picks and their gains, both (B, budget).

    Args:
        kernel: (B, N, N).
        budget: number of picks.
        shape: of a program.
        rounds: of one launch, by default all. Programs of a launch of one round do not wait for each other.
    """
    batch, num_tokens, _ = kernel.shape
    parts = -(-num_tokens // shape["WIDTH"])
    picks = torch.empty(batch, budget, dtype=torch.int64, device=kernel.device)
    gains, factor = kernel.new_empty(batch, budget), kernel.new_empty(batch, num_tokens, budget)
    left = kernel.new_empty(batch, num_tokens)  # the gains between launches
    told_gain, told_pick = kernel.new_empty(batch, budget, parts), picks.new_empty(batch, budget, parts)
    arrived = torch.zeros(batch, dtype=torch.int32, device=kernel.device)
    last = budget + 1
    launch: Any = _greedy_map_together[(batch * parts,)]
    at_once = rounds or last
    for begin in range(0, last, at_once):
        launch(
            kernel.contiguous(), factor, left, told_gain, told_pick, arrived, picks, gains,
            num_tokens, budget, parts, begin, min(last, begin + at_once),
            WAITS=at_once > 1, **shape, **launch_options(at_once > 1),
        )  # fmt: skip
    return picks, gains


@triton.jit
def _best(gain, token, num_tokens):
    """The largest gain, and the lowest of the tokens that have it."""
    best = tl.max(gain, axis=0)
    return best, tl.min(tl.where(gain == best, token, num_tokens - 1), axis=0)


@triton.jit
def _tell(told_gain, told_pick, arrived, gain, token, num_tokens, place):
    """The best of this part's tokens, to all parts."""
    best, pick = _best(gain, token, num_tokens)  # pyright: ignore[reportGeneralTypeIssues] - a function of Triton's
    tl.store(told_gain + place, best)
    tl.store(told_pick + place, pick.to(tl.int64))
    arrive(arrived)


# What other programs stored is not read from a multiprocessor's cache (".cg"), which may hold what was there before.


@triton.jit
def _best_of_all(told_gain, told_pick, first, parts, num_tokens, PARTS: tl.constexpr):
    """The best of what the parts told of a step, which begins at ``first``."""
    part = tl.arange(0, PARTS)
    gain = tl.load(told_gain + first + part, mask=part < parts, other=-float("inf"), cache_modifier=".cg")
    pick = tl.load(told_pick + first + part, mask=part < parts, other=0, cache_modifier=".cg")
    return _best(gain, pick.to(tl.int32), num_tokens)


@triton.jit(do_not_specialize=["budget", "parts", "begin", "end"])
def _greedy_map_together(
    kernel, factor, left, told_gain, told_pick, arrived, picks, gains, num_tokens, budget, parts, begin, end,
    WAITS: tl.constexpr, PARTS: tl.constexpr, WIDTH: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    tile = (tl.program_id(0) // parts).to(tl.int64)
    part = tl.program_id(0) % parts
    kernel += tile * num_tokens * num_tokens
    factor += tile * num_tokens * budget
    token = part * WIDTH + tl.arange(0, WIDTH)
    inside = token < num_tokens
    depth = tl.arange(0, DEPTH)
    held = tl.zeros([DEPTH, WIDTH], tl.float32)  # the factor, its rows below those of the steps that are done zero
    if begin == 0:
        gain = tl.load(kernel + token * (num_tokens + 1), mask=inside, other=-float("inf"))
    else:
        gain = tl.load(left + tile * num_tokens + token, mask=inside, other=-float("inf"))
    if not WAITS:
        known = (depth < begin - 1)[:, None] & inside[None, :]
        held = tl.load(factor + token[None, :] * budget + depth[:, None], mask=known, other=0.0)
    for turn in range(begin, end):
        if turn > 0:  # the columns of this part take in the pick of the round before
            step = turn - 1
            if WAITS:
                wait_for(arrived + tile, turn * parts)
            told = (tile * budget + step) * parts
            best, pick = _best_of_all(told_gain, told_pick, told, parts, num_tokens, PARTS)
            row = tl.load(kernel + pick * num_tokens + token, mask=inside, other=0.0)
            of_pick = tl.load(factor + pick * budget + depth, mask=depth < step, other=0.0, cache_modifier=".cg")
            row -= tl.sum(of_pick[:, None] * held, axis=0)
            row = tl.where(best > 0, row / tl.sqrt(tl.maximum(best, 1e-30)), 0.0)
            tl.store(factor + token * budget + step, row, mask=inside)
            held = tl.where(depth[:, None] == step, row[None, :], held)
            gain = tl.where(token == pick, -float("inf"), gain - row * row)
            if part == 0:
                tl.store(picks + tile * budget + step, pick.to(tl.int64))
                tl.store(gains + tile * budget + step, best)
        if turn < budget:
            place = (tile * budget + turn) * parts + part
            _tell(told_gain, told_pick, arrived + tile, gain, token, num_tokens, place)
    tl.store(left + tile * num_tokens + token, gain, mask=inside)
