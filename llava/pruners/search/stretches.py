"""Choices in stretches of a row of tokens, each of which keeps its share. No value is read back to the host."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from llava.pruners.functional import rank
from llava.pruners.search.products import measured


class Stretches:
    """Consecutive stretches of a row of tokens, the first of them one token longer where they are not all alike.

    Args:
        tokens: N.
        most: how many stretches at most; P is at most N.
        device: of the tokens.

    ``sizes`` (P,) are the tokens of each; ``inside`` (P, S) says which of as many places as the longest has tokens
    hold one.
    """

    def __init__(self, tokens: int, most: int, device: torch.device) -> None:
        self.count = min(tokens, most)
        self.shortest, self._longer = divmod(tokens, self.count)
        self.longest = self.shortest + (self._longer > 0)
        self.sizes = self.shortest + (torch.arange(self.count, device=device) < self._longer).long()
        self.inside = torch.arange(self.longest, device=device) < self.sizes.unsqueeze(1)

    def cut(self, values: Tensor, fill: float) -> Tensor:
        """Values (B, N, ...) of tokens by stretch, (B, P, S, ...), the last place of short ones filled."""
        ahead = self._longer * self.longest
        long = values[:, :ahead].unflatten(1, (self._longer, self.longest))
        short = values[:, ahead:].unflatten(1, (self.count - self._longer, self.shortest))
        missing = self.longest - self.shortest
        return torch.cat([long, pad(short, (0, 0) * (values.dim() - 2) + (0, missing), value=fill)], dim=1)

    def join(self, values: Tensor) -> Tensor:
        """What ``cut`` made, without the places that were filled, (B, P, S) -> (B, N)."""
        long, short = values[:, : self._longer], values[:, self._longer :, : self.shortest]
        return torch.cat([long.flatten(1), short.flatten(1)], dim=1)

    def variation(self, tokens: Tensor) -> Tensor:
        """How much the cosines of each token (B, N, D) with the others of its stretch vary, (B, P, S)."""
        tokens, length = measured(self.cut(tokens, fill=0.0))
        unit = tokens / (length + 1e-6)  # (B, P, S, D)
        others = (self.sizes - 1).clamp_min(1).unsqueeze(1)
        cosine = unit @ unit.mT  # (B, P, S, S)
        cosine.diagonal(dim1=2, dim2=3).zero_()
        mean = cosine.sum(dim=3, keepdim=True) / others.unsqueeze(2)  # (B, P, S, 1)
        apart = (cosine - mean).square() * self.inside.unsqueeze(1)  # none from what fills up a stretch
        return apart.sum(dim=3) / others * self.inside

    def best(self, scores: Tensor, weight: Tensor, budget: int) -> Tensor:
        """The tokens of every stretch with the highest scores, as many as its weight gives it.

        Args:
            scores: (B, N) of tokens, values possibly not finite.
            weight: (B, P) of stretches, finite and not negative.
            budget: number of tokens to choose, 0 < budget < N.

        Returns:
            (B, budget) int64, distinct.
        """
        of_stretch = self.cut(scores, fill=-torch.inf)  # (B, P, S)
        place = rank(of_stretch).argsort(dim=2)  # of each token among those of its stretch
        kept = self.join(place < quotas(weight, self.sizes, budget).unsqueeze(2))  # (B, N)
        return kept.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :budget]


def quotas(scores: Tensor, sizes: Tensor, budget: int) -> Tensor:
    """How many tokens each stretch keeps, ``budget`` in all, (B, P), (P,) -> (B, P) int64.

    Each has its share of the scores rounded down; what is left goes one by one to the largest shares. What stretches
    with fewer tokens than that cannot keep goes to the others, in rounds of one each, the largest share first.
    """
    count = scores.shape[1]
    share = scores / (scores.sum(dim=1, keepdim=True) + 1e-6)
    place = rank(share).argsort(dim=1)  # of each stretch among all, by its share
    kept = (share * budget).floor().long()
    left = budget - kept.sum(dim=1, keepdim=True)
    kept = torch.minimum(kept + (place < left), sizes)
    left = budget - kept.sum(dim=1, keepdim=True)  # what the stretches that are too short leave
    rounds = torch.arange(budget, device=scores.device).view(1, -1, 1)
    room = (rounds < (sizes - kept).unsqueeze(1)).gather(2, rank(share).unsqueeze(1).expand(-1, budget, count))
    given = room & (room.flatten(1).cumsum(dim=1).unflatten(1, (budget, count)) <= left.unsqueeze(2))
    return kept + given.sum(dim=1).gather(1, place)
