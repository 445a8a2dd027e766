"""PruMerge: LLaVA-PruMerge, adaptive token reduction (ICCV 2025), https://arxiv.org/abs/2403.15388."""

from dataclasses import dataclass

import torch
from torch import Tensor

from llava.pruners.base import Pruner
from llava.pruners.cues import VisualCues
from llava.pruners.functional import rank
from llava.pruners.merging import one_hot, place_for_rest, product
from llava.pruners.search.products import unit_vectors

NEIGHBOURS = 32


@dataclass(frozen=True)
class PruMerge(Pruner):
    """Keep the tokens that [CLS] attends to most, with their neighbours added, and one sum of all others.

    Attention and keys are those of the encoder's last block, its heads not split. To every kept token its 32 nearest
    others by the cosine of keys are added, each weighted by its attention; the last token is the sum of all that are
    not kept, weighted alike. The weights are not normalised. That token stands in the place of the last token that is
    not kept.

    This is the published method with a given ratio: T - 1 tokens and the sum make T. Its own number of tokens, the
    outliers of attention, is no budget, and that of PruMerge+, which adds tokens at even distances, cannot be given.
    """

    needs = frozenset({"last_attention", "last_keys"})
    paper = "https://arxiv.org/abs/2403.15388"
    source = "https://github.com/42Shawn/LLaVA-PruMerge"

    def select(self, cues: VisualCues, budget: int) -> Tensor:
        attended = rank(cues.need("last_attention"))[:, : budget - 1]
        return torch.cat([attended, place_for_rest(attended, cues.shape[1])], dim=1)

    def merge(self, cues: VisualCues, keep: Tensor) -> Tensor:
        num_tokens = cues.shape[1]
        attended = rank(cues.need("last_attention"))[:, : keep.shape[1] - 1]
        place = place_for_rest(attended, num_tokens)  # (B, 1)
        rest = 1 - one_hot(attended, num_tokens).sum(dim=1, keepdim=True)  # (B, 1, N)
        kept = one_hot(keep, num_tokens)  # (B, K, N)
        keys = unit_vectors(cues.need("last_keys"))
        cosine = product(keys.take_along_dim(keep.unsqueeze(2), dim=1), keys.mT)  # (B, K, N)
        nearest = rank(cosine.masked_fill(kept.bool(), -torch.inf))[..., : min(NEIGHBOURS, num_tokens - 1)]
        neighbours = torch.zeros_like(kept).scatter_(2, nearest, 1.0)
        attention = cues.need("last_attention").nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).unsqueeze(1)  # (B, 1, N)
        return torch.where((keep == place).unsqueeze(2), attention * rest, kept + attention * neighbours)
