"""The image side of a served model: LLaVA's own, over weights that vLLM loads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn

from llava.mm_utils import get_anyres_image_grid_shape
from llava.model.image_side import ImageSide
from llava.model.layout import layouts_of
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower
from llava.selecting.parts import Visual, kept_of
from llava.vllm.options import Served

Size = tuple[int, int]  # width and height in pixels


@dataclass(frozen=True)
class Sizes:
    """What the sizes of an image say of its tokens, before it is seen.

    Args:
        served: how it is pruned.
        vision: the encoder's CLIPVisionConfig, of square pictures and patches.
        anyres: whether an image is cut into a base tile and a grid of tiles, as LLaVA-NeXT does.
    """

    served: Served
    vision: Any
    anyres: bool

    def tiles(self, size: Size) -> int:
        """How many tiles an image has."""
        if not self.anyres:
            return 1
        return 1 + prod(
            get_anyres_image_grid_shape(size, self.served.settings["image_grid_pinpoints"], self.vision.image_size)
        )

    def visual(self, size: Size) -> Visual:
        """An image without its cues."""
        merge_type = self.served.settings.get("mm_patch_merge_type", "flat") if self.anyres else "flat"
        patches = (self.vision.image_size // self.vision.patch_size) ** 2
        config: Any = SimpleNamespace(**self.served.settings)  # all that is read of a config
        (layout,) = layouts_of([self.tiles(size)], patches, merge_type, [size], config, self.vision.image_size)
        return layout.visual({}, None)

    def kept(self, size: Size) -> int:
        """How many of its tokens the language model reads."""
        options = self.served.options
        return kept_of(options.chooser, self.visual(size), options.budget_scope)


class ServedImages(ImageSide):
    """From pixels to kept embeddings, by the way of LLaVA's own classes.

    The modules belong to vLLM's model, which loads their weights; they are only referred to here.

    Args:
        served: how to prune.
        tower: CLIP's vision side, named as its text side is.
        projector: reads features (B, N, C), returns embeddings (B, N, D).
        newline: (D,) LLaVA-NeXT's newline token; None for a model that reads an image as one tile.
        plain: the projector in PyTorch's own operations, for pruners that measure it; not needed by others.
        table: the language model's input embeddings, (R, M) ids -> (R, M, D), for pruners that read words.
        tokenizer: the language model's, for these, too.
    """

    def __init__(
        self,
        served: Served,
        tower: CLIPVisionTower,
        projector: nn.Module,
        newline: Tensor | None,
        plain: nn.Module | None = None,
        table: Callable[[Tensor], Tensor] | None = None,
        tokenizer: Any = None,
    ):
        self.config = SimpleNamespace(**served.settings)
        self.start_reading()
        parts = {"mm_projector": projector, "image_newline": newline, "embed_tokens": table}
        self._tower, self._parts = tower, SimpleNamespace(**parts)
        self._plain, self.word_tokenizer = plain, tokenizer
        self._sizes = Sizes(served, tower.config, newline is not None)
        self.pruning = served.options

    def get_vision_tower(self) -> CLIPVisionTower:
        return self._tower

    def get_model(self) -> SimpleNamespace:
        return self._parts

    def plain_projector(self) -> nn.Module:
        return super().plain_projector() if self._plain is None else self._plain

    def __call__(self, pixels: Sequence[Tensor], sizes: Sequence[Size] | None, texts: Sequence[str]) -> list[Tensor]:
        """Return the kept embeddings (K, D) of every image.

        Args:
            pixels: of each image (3, H, W), or under anyres its tiles (T, 3, H, W), of which those that it does not
                have are padding.
            sizes: of each image; needed under anyres, and by pruners that read where a border is.
            texts: the question that each was shown with.
        """
        if self._sizes.anyres:
            if sizes is None:
                raise ValueError("an image that is cut into tiles needs its size")
            pixels = [tiles[: self._sizes.tiles(size)] for tiles, size in zip(pixels, sizes, strict=True)]
        read, _ = self.read_batch(self.plan_batch(pixels, sizes, list(texts), self.pruning))
        return list(read.embeds.split(read.counts))
