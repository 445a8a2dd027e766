"""What every token of a tile gives to all others, for searches that cover them: at once or by rows."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from llava.pruners.search.products import ROWS_AT_ONCE, gram


@dataclass(frozen=True)
class Benefits:
    """The benefit of each of N candidates to each of R that are covered, the N tokens and then M words, if any.

    Args:
        tokens: (B, N, D).
        scale: (B, N) that makes unit vectors of them, None where they are.
        worth: (B, N) of each token that is covered, a factor on its benefits; None for 1.
        tau: temperature, where a benefit is not a cosine but exp of the cosine over it, 1 at most.
        words: (B, N, M) benefits to words; None for none.
    """

    tokens: Tensor
    scale: Tensor | None
    worth: Tensor | None = None
    tau: float | None = None
    words: Tensor | None = None

    def whole(self) -> Tensor:
        """(B, N, R), in memory of its own."""
        return self._of(gram(self.tokens, self.scale), self.words)

    def rows(self, candidates: slice | Tensor) -> Tensor:
        """Those of some candidates, a slice or (B, k), -> (B, k, R)."""
        products = _some(self.tokens, candidates) @ self.tokens.mT  # (B, k, N)
        if self.scale is not None:
            products *= _some(self.scale.unsqueeze(2), candidates) * self.scale.unsqueeze(1)
        return self._of(products, None if self.words is None else _some(self.words, candidates))

    def rows_of_one(self, candidates: Tensor) -> Tensor:
        """Those of some candidates (k,) of the only tile, -> (k, R)."""
        return self.rows(candidates.unsqueeze(0))[0]

    def sums(self) -> Tensor:
        """What each candidate gives to all together, (B, N), in memory linear in N."""
        return torch.cat([self.rows(block).sum(dim=2) for block in blocks(self.tokens.shape[1])], dim=1)

    def tile(self, number: int) -> "Benefits":
        """The benefits of one tile, a batch of one."""
        parts = {name: getattr(self, name) for name in ("tokens", "scale", "worth", "words")}
        return replace(self, **{name: part[number : number + 1] for name, part in parts.items() if part is not None})

    def _of(self, cosines: Tensor, words: Tensor | None) -> Tensor:
        if self.tau is not None:
            cosines.sub_(1).div_(self.tau).exp_()
        if self.worth is not None:
            cosines *= self.worth.unsqueeze(1)
        return cosines if words is None else torch.cat([cosines, words], dim=2)


def blocks(num_tokens: int) -> list[slice]:
    """All tokens, some at a time."""
    return [slice(start, start + ROWS_AT_ONCE) for start in range(0, num_tokens, ROWS_AT_ONCE)]


def _some(values: Tensor, candidates: slice | Tensor) -> Tensor:
    """Those of some candidates, (B, N, X) -> (B, k, X)."""
    if isinstance(candidates, slice):
        return values[:, candidates]
    return values.gather(1, candidates.unsqueeze(2).expand(-1, -1, values.shape[2]))
