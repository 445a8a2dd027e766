"""Which images and videos are in what an encoder returned, whenever and however that reaches the language model."""

import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers.utils import ModelOutput

from llava.selecting.parts import Visual

VISUALS = "pruned_visuals"  # on an output: what is in it; copies of the output take it along
ENCODED = "mm_encoder_outputs"
PIXELS = {"pixel_values": "image", "pixel_values_images": "image", "pixel_values_videos": "video"}


class Notes:
    """Notes what is in the outputs of encoders, and finds it again in those that a model is called with.

    Accelerate hands a model's arguments on as new objects, so an output without a note is compared with the noted ones
    that are still in use.
    """

    def __init__(self) -> None:
        self._noted: list[weakref.ref[ModelOutput]] = []

    def note(self, output: Any, visuals: list[Visual]) -> None:
        """Note that ``visuals`` are what ``output`` holds."""
        if isinstance(output, ModelOutput):
            setattr(output, VISUALS, visuals)
            self._noted = [*(known for known in self._noted if known() is not None), weakref.ref(output)]

    def find(self, outputs: Mapping[str, Any] | None) -> dict[str, list[Visual]]:
        """Return the images and videos in the outputs of each modality.

        Raises:
            NotImplementedError: for an output, or a part of one, that was never noted.
        """
        given = {modality: output for modality, output in (outputs or {}).items() if output is not None}
        found = {modality: self._found(output) for modality, output in given.items()}
        if any(visuals is None for visuals in found.values()):
            raise NotImplementedError(
                f"{ENCODED} that were not encoded as a whole by this model since it is pruned: encode them anew "
                "(chunked prefill is not supported)"
            )
        return found

    def _found(self, output: Any) -> list[Visual] | None:
        if hasattr(output, VISUALS):
            return getattr(output, VISUALS)
        living = (known() for known in self._noted)
        return next((getattr(known, VISUALS) for known in living if known is not None and _equal(known, output)), None)


def shown(arguments: Mapping[str, Any]) -> frozenset[str]:
    """The modalities that a model reads when it is called with these arguments."""
    pixels = {modality for name, modality in PIXELS.items() if arguments.get(name) is not None}
    outputs = arguments.get(ENCODED) or {}
    return frozenset(pixels | {modality for modality, output in outputs.items() if output is not None})


def same(encoded: Mapping[str, list[Visual]], others: Mapping[str, list[Visual]]) -> bool:
    """Whether both are of the same calls of the encoder."""
    return encoded.keys() == others.keys() and all(encoded[name] is others[name] for name in encoded)


def _equal(output: Any, other: Any) -> bool:
    """Whether two outputs hold the same tokens."""
    one, two = _tokens(output), _tokens(other)
    return one.shape == two.shape and torch.equal(one, two.to(one))


def _tokens(output: Any) -> Tensor:
    """The visual tokens in an output, (L, D)."""
    pooled = output.pooler_output
    return pooled.flatten(0, -2) if isinstance(pooled, Tensor) else torch.cat(list(pooled))
