"""HoloV: Don't Just Chase "Highlighted Tokens" in MLLMs (NeurIPS 2025), https://arxiv.org/abs/2510.02912."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from llava.pruners.base import Pruner
from llava.pruners.checks import is_count, is_number
from llava.pruners.cues import VisualCues
from llava.pruners.functional import finite, rank
from llava.pruners.search.products import measured


@dataclass(frozen=True)
class HoloV(Pruner):
    """Keep of every stretch of the image as many tokens as its share of attention, those that [CLS] attends to most.

    The tokens are cut into consecutive stretches. A stretch counts by the mean attention of its tokens and by how much
    the similarities of each with the others vary; that second part all but cancels, see ``_scores``. A stretch with
    fewer tokens than its share is kept whole, and what is left goes one by one to the others, the highest share first.
    The release fills up with zeros in its place.

    Args:
        num_patches: stretches, 1 or more; of fewer tokens each is one.
        alpha: weight of the variation of similarities, 0 or more.

    Raises:
        ValueError: when an option is out of range.
    """

    num_patches: int = 16
    alpha: float = 0.09

    needs = frozenset({"embeds", "cls_attention"})
    scope = "image"
    paper = "https://arxiv.org/abs/2510.02912"
    source = "https://github.com/obananas/HoloV"
    licence = "Apache-2.0"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_count(self.num_patches) or self.num_patches == 0:
            raise ValueError(f"num_patches must be an integer, 1 or more, not {self.num_patches!r}")
        if not (is_number(self.alpha) and 0 <= self.alpha < float("inf")):
            raise ValueError(f"alpha must be a number, 0 or more, not {self.alpha!r}")

    def select(self, cues: VisualCues, budget: int) -> Tensor:
        stretches = _Stretches(cues.shape[1], self.num_patches, cues.embeds.device)
        quotas = _quotas(self._scores(cues, stretches), stretches.sizes, budget)  # (B, P)
        attention = stretches.cut(cues.cls_attention, fill=-torch.inf)  # (B, P, S)
        place = rank(attention).argsort(dim=2)  # of each token among those of its stretch
        kept = stretches.join(place < quotas.unsqueeze(2))  # (B, N)
        return kept.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :budget]

    def _scores(self, cues: VisualCues, stretches: "_Stretches") -> Tensor:
        """What each stretch counts, (B, P), finite and not negative.

        The variation of a token is divided by the mean of its stretch, so that their sum is mean attention times
        alpha, unless the tokens of a stretch are all but equal.
        """
        attention = stretches.cut(finite(cues.cls_attention).clamp(0, 1), fill=0.0)  # shares: (B, P, S)
        tokens, length = measured(stretches.cut(cues.embeds, fill=0.0))
        unit = tokens / (length + 1e-6)  # (B, P, S, D)
        sizes, inside = stretches.sizes, stretches.inside  # (P,), (P, S)
        others = (sizes - 1).clamp_min(1).unsqueeze(1)
        cosine = unit @ unit.mT  # (B, P, S, S)
        cosine.diagonal(dim1=2, dim2=3).zero_()
        mean = cosine.sum(dim=3, keepdim=True) / others.unsqueeze(2)  # (B, P, S, 1)
        apart = (cosine - mean).square() * inside.unsqueeze(1)  # none from what fills up a stretch
        variation = apart.sum(dim=3) / others * inside  # (B, P, S)
        raised = 1000 * attention
        balance = raised.sum(dim=2) / sizes / (variation.sum(dim=2) / sizes + 1e-6)  # (B, P)
        scores = (raised + self.alpha * variation * balance.unsqueeze(2)).sum(dim=2) / sizes
        return scores.where(sizes > 1, attention.sum(dim=2))


class _Stretches:
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


def _quotas(scores: Tensor, sizes: Tensor, budget: int) -> Tensor:
    """How many tokens each stretch keeps, ``budget`` in all, (B, P), (P,) -> (B, P) int64."""
    count = scores.shape[1]
    share = scores / (scores.sum(dim=1, keepdim=True) + 1e-6)
    place = rank(share).argsort(dim=1)  # of each stretch among all, by its share
    quotas = (share * budget).floor().long()
    left = budget - quotas.sum(dim=1, keepdim=True)
    quotas = torch.minimum(quotas + (place < left), sizes)
    left = budget - quotas.sum(dim=1, keepdim=True)  # what the stretches that are too short leave
    rounds = torch.arange(budget, device=scores.device).view(1, -1, 1)
    room = (rounds < (sizes - quotas).unsqueeze(1)).gather(2, rank(share).unsqueeze(1).expand(-1, budget, count))
    given = room & (room.flatten(1).cumsum(dim=1).unflatten(1, (budget, count)) <= left.unsqueeze(2))
    return quotas + given.sum(dim=1).gather(1, place)
