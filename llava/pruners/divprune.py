"""DivPrune: Diversity-based Visual Token Pruning (CVPR 2025), https://arxiv.org/abs/2503.02175."""

from dataclasses import dataclass

import torch
from torch import Tensor

from llava.pruners.base import Pruner, VisualCues
from llava.pruners.functional import directions, gram, kernels_for


@dataclass(frozen=True)
class DivPrune(Pruner):
    """Keep the tokens that lie farthest apart (greedy max-min diversity).

    Starts from the token farthest from its nearest neighbour, then repeatedly adds the token farthest from everything
    kept so far, by cosine distance of the projected tokens.
    """

    needs = frozenset({"embeds"})

    def select(self, cues: VisualCues, budget: int) -> Tensor:
        distance = gram(*directions(cues.embeds)).neg_().add_(1)  # (B, N, N)
        itself = distance.diagonal(dim1=1, dim2=2)
        itself.fill_(torch.inf)
        gap = distance.amin(dim=1)  # (B, N) to the nearest other token
        itself.fill_(-torch.inf)  # a kept token is never the farthest again

        return farthest_points(distance, gap.argmax(dim=1, keepdim=True), budget)


def farthest_points(distance: Tensor, first: Tensor, budget: int) -> Tensor:
    """Add the token farthest from all picks before it until there are ``budget``, -> (B, budget) int64, distinct.

    Args:
        distance: (B, N, N), -inf on the diagonal.
        first: (B, 1) the picks to start from.
        budget: number of picks.
    """
    if kernels := kernels_for(distance):
        return kernels.farthest_points(distance, first, budget)
    picks = [first]
    gap = torch.full_like(distance[:, 0], torch.inf)  # (B, N) to the nearest pick
    while len(picks) < budget:
        to_last = distance.gather(1, picks[-1].unsqueeze(2).expand(-1, 1, gap.shape[1])).squeeze(1)  # (B, N)
        torch.minimum(gap, to_last, out=gap)
        picks.append(gap.argmax(dim=1, keepdim=True))
    return torch.cat(picks, dim=1)
