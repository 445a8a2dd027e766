"""Random choice, the baseline any pruner has to beat."""

from dataclasses import dataclass

import torch
from torch import Tensor

from llava.pruners.base import Pruner
from llava.pruners.checks import is_count
from llava.pruners.cues import VisualCues


@dataclass(frozen=True)
class RandomPruner(Pruner):
    """Keep tokens at random: a set that depends on the seed, the tile's place within its image and N alone.

    It is the same on every device, in every batch and in every process, and grows with the budget.

    Args:
        seed: of the choice, 0 or more.

    Raises:
        ValueError: when the seed is not such an integer.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_count(self.seed):
            raise ValueError(f"seed must be an integer, 0 or more, not {self.seed!r}")

    def select(self, cues: VisualCues, budget: int) -> Tensor:
        batch, num_tokens = cues.shape
        # A tile's place in its image is known to the device alone, so a set is drawn for every possible place.
        sets = torch.stack([self._permutation(place, num_tokens)[:budget] for place in range(batch)])
        return sets.to(cues.device)[_place_in_image(cues)]

    def _permutation(self, place: int, num_tokens: int) -> Tensor:
        mixed = ((int(self.seed) * 1_000_003 + place) * 1_000_003 + num_tokens) % 2**32
        return torch.randperm(num_tokens, generator=torch.Generator().manual_seed(mixed))


def _place_in_image(cues: VisualCues) -> Tensor:
    """How many earlier tiles belong to the same image, (B,) int64."""
    if cues.image_index is None:
        return torch.arange(cues.shape[0], device=cues.device)
    same_image = cues.image_index[:, None] == cues.image_index[None, :]  # (B, B)
    return same_image.long().tril(-1).sum(dim=1)
