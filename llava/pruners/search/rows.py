"""Rows of a matrix of products that is never held as a whole, for searches on the CPU."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from llava.pruners.search.products import ALIGNMENT, ROWS_AT_ONCE, fits_gram

FEWEST_ROWS = 24  # computed together, as long as there are that many
LISTED = 32  # neighbours that are remembered of every token


class ProductRows:
    """The products w[i] <i, j> w[j] of one tile by rows, each to be taken once.

    A product of many rows takes little more time than one of a few. With a row that is asked for come those of the
    tokens that now look likeliest to be picked next; every row that is not asked for later was computed in vain.

    Args:
        tokens: (N, D).
        weight: (N,).
        budget: how many rows will be taken at most.
    """

    def __init__(self, tokens: Tensor, weight: Tensor, budget: int) -> None:
        self._tokens, self._weight = tokens, weight
        self._block = min(max(FEWEST_ROWS, budget // 4), ROWS_AT_ONCE)
        self._rest = -len(weight) % ALIGNMENT
        self._rows: dict[int, Tensor] = {}

    def take(self, pick: int, promise: Tensor) -> Tensor:
        """The row of a token, (N',), zeros behind its N numbers filling the last cache line.

        Args:
            pick: the token.
            promise: (N) or (N',) the higher, the sooner a token is likely to be picked; -inf for those that cannot be.
        """
        if pick not in self._rows:
            block = self._likely_next(pick, promise)
            products = self._tokens.index_select(0, block) @ self._tokens.T  # (block, N)
            products *= self._weight[block].unsqueeze(1) * self._weight
            rows = pad(products, (0, self._rest)).unbind()
            if not fits_gram(len(self._weight)):  # a row is part of its block, all of which stays until all are taken
                rows = [row.clone() for row in rows]
            self._rows.update(zip(block.tolist(), rows, strict=True))
        return self._rows.pop(pick)

    def _likely_next(self, pick: int, promise: Tensor) -> Tensor:
        """The pick and the most promising tokens whose rows are not there, at most a block."""
        promise = promise.index_fill(0, torch.tensor(list(self._rows), dtype=torch.long), -torch.inf)
        promise[pick] = torch.inf
        return promise.topk(min(self._block, int((promise > -torch.inf).sum()))).indices


class NearestNeighbours:
    """The most similar tokens of every token of one tile, as far as they were asked for.

    A token's list holds the tokens that were nearest to it in the pool when it was made. The pool only shrinks, so the
    nearest of any part of the pool is the nearest that the list has of it; where it has none, the list is made anew.

    Args:
        unit: (N, C) unit vectors.
    """

    def __init__(self, unit: Tensor) -> None:
        self._unit = unit
        self._listed = torch.arange(len(unit)).unsqueeze(1).repeat(1, LISTED)  # itself: nothing is known yet
        self._cosine = unit.new_zeros(len(unit), LISTED)

    def cosine(self, first: Tensor, second: Tensor) -> Tensor:
        """The largest cosine of each token of ``first`` with one of ``second``, (1, R), (1, S) -> (1, R).

        Args:
            first: half of the pool.
            second: the other half.
        """
        first, second = first[0], second[0]
        wanted = torch.zeros(len(self._unit), dtype=torch.bool).index_fill_(0, second, True)
        hits = wanted[self._listed[first]]  # (R, LISTED)
        largest = self._cosine[first].where(hits, -torch.inf).amax(dim=1)
        if missing := int((largest == -torch.inf).sum()):
            count = min(len(first), max(FEWEST_ROWS, missing))
            places = hits.sum(dim=1).topk(count, largest=False).indices
            pool = torch.cat([second, first])
            for part in places.split(ROWS_AT_ONCE):
                rows = (self._unit[first[part]] @ self._unit.T)[:, pool]
                largest[part] = rows[:, : len(second)].amax(dim=1)
                self._remember(first[part], rows, pool)
        return largest.unsqueeze(0)

    def _remember(self, tokens: Tensor, rows: Tensor, pool: Tensor) -> None:
        nearest = rows.topk(min(LISTED, len(pool)), dim=1)
        self._cosine[tokens, : nearest.values.shape[1]] = nearest.values
        self._listed[tokens, : nearest.values.shape[1]] = pool[nearest.indices]
