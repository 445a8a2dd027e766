"""Greedy search for the tokens that together cover most (facility location)."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from llava.pruners.search.benefits import Benefits, blocks
from llava.pruners.search.device import on_cpu, one_operator
from llava.pruners.search.lazy import LazyGains
from llava.pruners.search.products import directions, fits_gram

Rows = Callable[[Tensor], Tensor]  # from candidates to their benefits


def cover(
    tokens: Tensor,
    budget: int,
    weight: Tensor | None = None,
    bonus: Tensor | None = None,
    worth: Tensor | None = None,
    nothing: float = 0.0,
) -> Tensor:
    """Add the token with the largest weight[i] * sum_j worth[j] * max(0, cos(i, j) - covered[j]) + bonus[i], greedily.

    covered[j] is the largest cosine of j with a token chosen before, j itself included.

    Args:
        tokens: (B, N, D), of any length, values possibly not finite; the cosine with a token without direction is 0.
        budget: number of tokens to choose, 0 < budget < N.
        weight: (B, N) of each candidate, finite and not negative; None for 1.
        bonus: (B, N) of each candidate, finite; None for 0.
        worth: (B, N) of each token that is covered, finite and not negative; None for 1.
        nothing: what is covered of every token at first: 0, or -1 where any cosine is better than none.

    Returns:
        (B, budget) int64, distinct, in the order in which they are added; ties go to the lower index.
    """
    benefits = Benefits(*directions(tokens), worth=worth)
    covered = torch.full_like(tokens[..., 0], nothing) if worth is None else nothing * worth
    if fits_gram(tokens.shape[1]):
        return covering(benefits.whole(), covered, budget, weight, bonus, None)
    return _by_rows(benefits, covered, budget, weight, bonus, None)


def cover_softly(
    tokens: Tensor, budget: int, tau: float, share: float, words: Tensor | None = None, barred: Tensor | None = None
) -> Tensor:
    """Add the token that most raises the largest probability that tokens and words have for a chosen one, greedily.

    The probabilities that a token has for those of its tile are a softmax of its cosines. Words bring theirs.

    Args:
        tokens: (B, N, D), of any length, values possibly not finite. To one without direction all are alike, so that it
            decides nothing.
        budget: number of tokens to choose, 0 < budget < N.
        tau: temperature of the softmax, above 0.
        share: what all tokens count together: the probabilities of each are multiplied by share / N.
        words: (B, N, M) what each word's probability of each token counts, finite and not negative; None for no words.
        barred: (B, N) bool, tokens that are only chosen when no other is left; None for none.

    Returns:
        (B, budget) int64, distinct, in the order in which they are added; ties go to the lower index.
    """
    benefits = Benefits(*directions(tokens), tau=tau)
    whole = benefits.whole() if fits_gram(tokens.shape[1]) else None
    sums = benefits.sums() if whole is None else whole.sum(dim=2)  # (B, N)
    worth = (share / tokens.shape[1] / sums).masked_fill(sums == 0, 0.0)
    covered = tokens.new_zeros(len(tokens), tokens.shape[1] + (0 if words is None else words.shape[2]))
    if whole is None:
        return _by_rows(replace(benefits, worth=worth, words=words), covered, budget, None, None, barred)
    whole *= worth.unsqueeze(1)
    whole = whole if words is None else torch.cat([whole, words], dim=2)
    return covering(whole, covered, budget, None, None, barred)


def _empty_picks(benefit: Tensor, covered: Tensor, budget: int, *of_candidates: Tensor | None) -> Tensor:
    return benefit.new_empty(len(benefit), budget, dtype=torch.int64)


@one_operator(_empty_picks)
def covering(
    benefit: Tensor,
    covered: Tensor,
    budget: int,
    weight: Tensor | None,
    bonus: Tensor | None,
    barred: Tensor | None,
) -> Tensor:
    """The search over a whole matrix, -> (B, budget) int64, distinct, in order.

    Args:
        benefit: (B, N, R) of each candidate to each of R that are covered, R at least N.
        covered: (B, R) of each at first.
        budget: number of picks.
        weight: (B, N) of each candidate, as in ``cover``; None for 1.
        bonus: (B, N) of each candidate, as in ``cover``; None for 0.
        barred: (B, N) bool, as in ``cover_softly``; None for none.
    """
    if on_cpu(benefit):
        tiles = [partial(tile.index_select, 0) for tile in benefit]
        return _tile_by_tile(tiles, benefit.shape[1], covered, budget, weight, bonus, barred)

    def gains(covered: Tensor) -> Tensor:
        return _sum(benefit - covered.unsqueeze(1), benefit.shape[1])

    def row(pick: Tensor) -> Tensor:
        return benefit.gather(1, pick.unsqueeze(2).expand(-1, 1, benefit.shape[2]))

    return _in_step(gains, row, covered, budget, weight, bonus, barred)


def _by_rows(benefits: Benefits, covered: Tensor, budget: int, *of_candidates: Tensor | None) -> Tensor:
    """As ``covering``, over rows of a matrix that is never held as a whole."""
    batch, num_tokens = benefits.tokens.shape[:2]
    if on_cpu(covered):
        tiles = [benefits.tile(number).rows_of_one for number in range(batch)]
        return _tile_by_tile(tiles, num_tokens, covered, budget, *of_candidates)

    def gains(covered: Tensor) -> Tensor:
        parts = [_sum(benefits.rows(block).sub_(covered.unsqueeze(1)), num_tokens) for block in blocks(num_tokens)]
        return torch.cat(parts, dim=1)

    return _in_step(gains, benefits.rows, covered, budget, *of_candidates)


def _sum(beyond: Tensor, num_tokens: int) -> Tensor:
    """What candidates add where their benefit lies beyond what is covered, (..., k, R) -> (..., k); writes to it.

    Words are added to tokens before all are summed: so words of zeros, which fill up a question, round nothing.
    """
    beyond.clamp_(min=0)
    if beyond.shape[-1] > num_tokens:
        beyond, *words = beyond.split(num_tokens, dim=-1)
        for part in words:
            beyond[..., : part.shape[-1]] += part
    return beyond.sum(dim=-1)


def _in_step(
    gains: Callable[[Tensor], Tensor],
    rows: Rows,
    covered: Tensor,
    budget: int,
    weight: Tensor | None,
    bonus: Tensor | None,
    barred: Tensor | None,
) -> Tensor:
    """All tiles in step, every gain anew for every pick, and nothing read back.

    Args:
        gains: from what is covered (B, R) to what each candidate adds, (B, N).
        rows: from candidates (B, k) to their benefits (B, k, R).
        covered, budget, weight, bonus, barred: as in ``covering``.
    """
    picks: list[Tensor] = []
    others = None if barred is None else barred.logical_not().sum(dim=1, keepdim=True)  # (B, 1)
    for step in range(budget):
        gain = gains(covered)
        gain = gain if weight is None else gain * weight
        gain = gain if bonus is None else gain + bonus
        if barred is not None and others is not None:
            gain = gain.masked_fill(barred & (others > step), -torch.inf)
        if picks:
            gain = gain.scatter(1, torch.cat(picks, dim=1), -torch.inf)
        picks.append(gain.argmax(dim=1, keepdim=True))
        covered = torch.maximum(covered, rows(picks[-1]).squeeze(1))
    return torch.cat(picks, dim=1)


def _tile_by_tile(
    tiles: list[Rows], num_tokens: int, covered: Tensor, budget: int, *of_candidates: Tensor | None
) -> Tensor:
    """The same choice on the CPU, where only gains are computed anew that may be the largest.

    Args:
        tiles: of each tile, from candidates (k,) to their benefits (k, R), in memory that may be written to.
        covered, budget, of_candidates: as in ``covering``.
    """
    picks = []
    for tile, rows in enumerate(tiles):
        own = (None if given is None else given[tile] for given in of_candidates)
        picks.append(_lazily(rows, num_tokens, covered[tile].clone(), budget, *own))
    return torch.tensor(picks, device=covered.device)


def _lazily(
    rows: Rows,
    num_tokens: int,
    covered: Tensor,
    budget: int,
    weight: Tensor | None,
    bonus: Tensor | None,
    barred: Tensor | None,
) -> list[int]:
    """The picks of one tile, as in ``_tile_by_tile``; writes to what is covered, (R,)."""

    def gains(candidates: Tensor) -> Tensor:
        gain = _sum(rows(candidates).sub_(covered), num_tokens)
        gain = gain if weight is None else gain * weight[candidates]
        return gain if bonus is None else gain + bonus[candidates]

    left = LazyGains(gains, num_tokens, barred)
    picks = []
    for _ in range(budget):
        picks.append(left.take())
        torch.maximum(covered, rows(torch.tensor(picks[-1:], device=covered.device))[0], out=covered)
    return picks
