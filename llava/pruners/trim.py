"""TRIM: Less is More, a simple yet effective token reduction method (COLING 2025), https://arxiv.org/abs/2409.10994."""

from dataclasses import dataclass

import torch
from torch import Tensor

from llava.pruners.base import Pruner
from llava.pruners.cues import VisualCues
from llava.pruners.functional import rank
from llava.pruners.merging import one_hot, place_for_rest


@dataclass(frozen=True)
class Trim(Pruner):
    """Keep the tokens most relevant to the question and the mean of all others.

    The relevance is a softmax over the patches of the negated dot product of patch and text; a softmax changes no
    order, so the product ranks. The mean is one of the kept tokens and stands in the place of the last token that is
    not relevant enough. Unlike the others, this method has nothing to choose by where there is no text.
    """

    needs = frozenset({"dot_relevance"})
    paper = "https://arxiv.org/abs/2409.10994"
    source = "https://github.com/FreedomIntelligence/TRIM"

    def select(self, cues: VisualCues, budget: int) -> Tensor:
        relevant = rank(cues.need("dot_relevance"))[:, : budget - 1]
        return torch.cat([relevant, place_for_rest(relevant, cues.shape[1])], dim=1)

    def merge(self, cues: VisualCues, keep: Tensor) -> Tensor:
        num_tokens = cues.shape[1]
        relevant = rank(cues.need("dot_relevance"))[:, : keep.shape[1] - 1]
        place = place_for_rest(relevant, num_tokens)  # (B, 1)
        rest = 1 - one_hot(relevant, num_tokens).sum(dim=1, keepdim=True)  # (B, 1, N)
        mean = rest / rest.sum(dim=2, keepdim=True)
        return torch.where((keep == place).unsqueeze(2), mean, one_hot(keep, num_tokens))
