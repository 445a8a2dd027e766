"""VisionZip: Longer is Better but Not Necessary in Vision Language Models, https://arxiv.org/abs/2412.04467."""

from dataclasses import dataclass

import torch
from torch import Tensor

from llava.pruners.base import Pruner
from llava.pruners.checks import is_number
from llava.pruners.cues import VisualCues
from llava.pruners.functional import rank
from llava.pruners.merging import one_hot, product
from llava.pruners.search.products import unit_vectors


@dataclass(frozen=True)
class VisionZip(Pruner):
    """Keep the tokens that [CLS] attends to most, and merge the others into a few at even distances.

    The dominant tokens stay as they are. Of the others, in raster order, tokens at even distances are the targets;
    every token that is neither goes to the target whose key is most similar to its own, and the target becomes the sum
    of itself and the mean of those.

    [CLS] is no visual token here; the release keeps it as one of the dominant.

    Args:
        contextual_ratio: share of the kept tokens that others are merged into, in [0, 1), rounded down; 10 of 64 if
            it is not given.

    Raises:
        ValueError: when contextual_ratio is out of range.
    """

    contextual_ratio: float = 10 / 64

    needs = frozenset({"cls_attention", "keys"})
    paper = "https://arxiv.org/abs/2412.04467"
    source = "https://github.com/dvlab-research/VisionZip"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (is_number(self.contextual_ratio) and 0 <= self.contextual_ratio < 1):
            raise ValueError(f"contextual_ratio must be a number in [0, 1), not {self.contextual_ratio!r}")

    def select(self, cues: VisualCues, budget: int) -> Tensor:
        return torch.cat(self._parts(cues, budget), dim=1)

    def merge(self, cues: VisualCues, keep: Tensor) -> Tensor | None:
        _, targets = self._parts(cues, keep.shape[1])
        if targets.shape[1] == 0:
            return None
        keys = unit_vectors(cues.need("keys"))  # (B, N, C')
        similarity = product(keys.take_along_dim(targets.unsqueeze(2), dim=1), keys.mT)  # (B, targets, N)
        nearest = targets.gather(1, similarity.argmax(dim=1))  # (B, N)
        kept = one_hot(keep, keys.shape[1])  # (B, K, N)
        goes_there = nearest.unsqueeze(1) == keep.unsqueeze(2)
        assigned = (goes_there & (kept.sum(dim=1, keepdim=True) == 0)).float()
        return kept + assigned / assigned.sum(dim=2, keepdim=True).clamp_min(1)

    def _parts(self, cues: VisualCues, budget: int) -> tuple[Tensor, Tensor]:
        """The dominant tokens, the most attended first, and the targets in raster order, (B, D) and (B, budget - D)."""
        num_targets = int(budget * self.contextual_ratio)
        dominant = rank(cues.need("cls_attention"))[:, : budget - num_targets]
        num_others = cues.shape[1] - dominant.shape[1]
        is_dominant = one_hot(dominant, cues.shape[1]).sum(dim=1)  # (B, N)
        others = is_dominant.argsort(dim=1, stable=True)[:, :num_others]
        step = num_others // max(num_targets, 1)
        return dominant, others[:, : num_targets * step : step]
