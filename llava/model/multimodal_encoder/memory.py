"""Images that are read again and again, as under one pruner after the other: each is encoded once."""

from collections.abc import Callable, Hashable

import torch
from torch import Tensor

Encoded = tuple[Tensor, dict[str, Tensor]]
OF_A_LAYER = frozenset({"object_attention"})
"""Cues of a block that those name who ask for them."""


class Memory:
    """What was read of the images that were encoded last; who gives others, or asks for more, has them encoded anew.

    Images are known again by what they show. A memory is of one thread, and lasts as long as its owner keeps it.

    Args:
        needs: the cues that will be asked for, by one call or another.
        layer: the block that those in ``OF_A_LAYER`` will be asked of; None where that is not known.
    """

    def __init__(self, needs: frozenset[str] = frozenset(), layer: int | None = None):
        self.needs = needs - OF_A_LAYER if layer is None else needs
        self.layer = layer
        self._images: Tensor | None = None
        self._layer: int | None = None
        self._states: Tensor | None = None
        self._cues: dict[str, Tensor] = {}
        self._known: frozenset[str] = frozenset()
        self._derived: dict[Hashable, Tensor] = {}

    def encoded(
        self,
        images: Tensor,
        needs: frozenset[str],
        layer: int,
        encode: Callable[[Tensor, frozenset[str], int], Encoded],
    ) -> Encoded:
        """The states of images (B, 3, H, W) and the cues in ``needs``, as ``encode`` makes them."""
        same = self._images is not None and _equal(self._images, images)
        layer = self.layer if self.layer is not None and not needs & OF_A_LAYER else layer
        if not (same and needs <= self._known and (not needs & OF_A_LAYER or layer == self._layer)):
            self._known, self._layer = self.needs | needs, layer
            self._states, self._cues = encode(images, self._known, layer)
            self._images, self._derived = images, self._derived if same else {}
        return self._states, {name: self._cues[name] for name in needs & self._cues.keys()}

    def derived(self, what: Hashable, features: Tensor, derive: Callable[[Tensor], Tensor]) -> Tensor:
        """What ``derive`` makes of features (B, N, C), ``what`` names it; of those of the images it is made once."""
        if self._states is None or not _equal(features, self._states[:, -features.shape[1] :]):
            return derive(features)
        if what not in self._derived:
            self._derived[what] = derive(features)
        return self._derived[what]


def _equal(one: Tensor, other: Tensor) -> bool:
    alike = (one.shape, one.dtype, one.device) == (other.shape, other.dtype, other.device)
    return alike and torch.equal(one, other)
