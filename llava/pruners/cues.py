"""What a pruner may be told about visual tokens, and about the question that is asked of them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from llava.pruners.checks import check_tensor, is_count

CUES = (
    "features",
    "embeds",
    "cls_attention",
    "relevance",
    "keys",
    "last_attention",
    "last_keys",
    "dot_relevance",
    "text_attention",
    "sensitivity",
    "object_attention",
    "deep_attention",
    "premerger",
    "joint_embeds",
    "padding",
)
"""Cues of every visual token."""
TEXT_FORMS = {"text_tokens": "(B, M, D)", "text_sequence": "(B, M, L, E)"}
"""Cues of the question that is asked of an image, and their form: the same for all tiles of the image."""
PER_TOKEN_VECTORS = frozenset({"features", "embeds", "keys", "last_keys", "premerger", "joint_embeds"})
"""Of the cues of visual tokens, those with a vector for each; the others have a number."""
OPTIONAL_CUES = frozenset({"relevance", "text_tokens", "text_sequence", "joint_embeds", "premerger", "padding"})
"""Cues that may be missing though a pruner reads them: there may be no question, no merger and no border."""
CLIP_TEXT_CUES = frozenset({"relevance", "dot_relevance", "text_sequence", "joint_embeds"})
"""Cues that CLIP's text side gives, or that mean nothing without it."""
QUESTION_CUES = CLIP_TEXT_CUES | {"text_tokens"}
"""Cues that there are only where there is a question."""
INSIDE_CUES = frozenset({"text_attention"})
"""Cues that are known inside the language model alone."""


@dataclass(frozen=True, eq=False)
class VisualCues:
    """What is known about B tiles of N visual tokens each when the kept ones are chosen.

    A cue that the pruner does not read may be None.

    Args:
        features: (B, N, C) output of the vision encoder.
        embeds: (B, N, D) output of the projector, what the language model would read.
        cls_attention: (B, N) attention from [CLS] to every patch, mean over heads.
        relevance: (B, N) negated cosine of patch and instruction, mean over text segments; higher is more relevant.
        image_index: (B,) the image each tile belongs to, any labels in any order; None when all tiles are one image's.
        keys: (B, N, C / H) keys of the encoder's selected block, mean over heads.
        last_attention: (B, N) attention from [CLS] to every patch in the encoder's last block, its heads not split.
        last_keys: (B, N, C) keys of the encoder's last block, its heads not split.
        dot_relevance: (B, N) negated dot product of patch and instruction, neither of unit length; higher is more
            relevant.
        text_attention: (B, N) attention from the last token of the prompt inside the language model, mean over heads.
        sensitivity: (B, N) how much the projector's output moves with its input, mean length over random directions.
        object_attention: (B, N) attention that every patch receives in one of the encoder's middle blocks, mean over
            heads and queries.
        deep_attention: (B, N) the same in the encoder's selected block.
        premerger: (B, N, C) states of the encoder before patches are merged to tokens, mean over the patches of a
            token; None of a model that merges none.
        joint_embeds: (B, N, E) patches in CLIP's joint space of images and texts, not of unit length.
        padding: (B, N) 1 where a patch shows nothing but the border that made its picture square, else 0.
        text_tokens: (B, M, D) the language model's input embeddings of the words of each tile's question. A word that
            is all zeros is none: it fills up a question of fewer words.
        text_sequence: (B, M, L, E) every position of CLIP's text side, in the joint space, of the M segments of each
            tile's question. A segment that is all zeros is none.
        grid: rows and columns of the tokens, rows * columns = N, where they stand in one; None of any others, or
            where nobody said.

    Raises:
        TypeError: when a cue holds no floating-point numbers, or ``image_index`` no integers.
        ValueError: when a cue has another rank, no tiles or no width, the cues disagree about B or N, or all are None;
            or a grid that does not hold N tokens.
    """

    features: Tensor | None
    embeds: Tensor | None
    cls_attention: Tensor | None = None
    relevance: Tensor | None = None
    image_index: Tensor | None = None
    keys: Tensor | None = None
    last_attention: Tensor | None = None
    last_keys: Tensor | None = None
    dot_relevance: Tensor | None = None
    text_attention: Tensor | None = None
    sensitivity: Tensor | None = None
    object_attention: Tensor | None = None
    deep_attention: Tensor | None = None
    premerger: Tensor | None = None
    joint_embeds: Tensor | None = None
    padding: Tensor | None = None
    text_tokens: Tensor | None = None
    text_sequence: Tensor | None = None
    grid: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for name, cue in self._given().items():
            check_tensor(name, cue, "(B, N, D)" if name in PER_TOKEN_VECTORS else "(B, N)")
        shapes = {name: tuple(cue.shape) for name, cue in self._given().items()}
        if not shapes:
            raise ValueError(f"at least one cue must be given, of {', '.join(CUES)}")
        if len({shape[:2] for shape in shapes.values()}) != 1:
            raise ValueError(f"cues must share their first two dimensions, tiles and tokens; given: {shapes}")
        self._check_texts()
        if self.image_index is not None:
            self._check_image_index(self.image_index)
        if self.grid is not None and not (
            len(self.grid) == 2 and all(map(is_count, self.grid)) and self.grid[0] * self.grid[1] == self.shape[1]
        ):
            raise ValueError(f"grid must be rows and columns of {self.shape[1]} tokens, not {self.grid!r}")

    def _check_texts(self) -> None:
        for name, form in TEXT_FORMS.items():
            cue = getattr(self, name)
            if cue is not None:
                check_tensor(name, cue, form)
                if len(cue) != self.shape[0]:
                    raise ValueError(
                        f"{name} must be of each of {self.shape[0]} tiles, its shape is {tuple(cue.shape)}"
                    )

    def _check_image_index(self, image_index: Tensor) -> None:
        tiles = self.shape[0]
        if not isinstance(image_index, Tensor):
            raise TypeError(f"image_index must be a tensor, not {type(image_index).__name__}")
        if tuple(image_index.shape) != (tiles,):
            shape = tuple(image_index.shape)
            raise ValueError(f"image_index must name one image for each of {tiles} tiles, its shape is {shape}")
        if image_index.is_floating_point() or image_index.is_complex():
            raise TypeError(f"image_index must hold integers, not {image_index.dtype}")

    def need(self, name: str) -> Tensor:
        """The cue of this name, which a pruner cannot do without; raises ValueError where it is None."""
        cue = getattr(self, name)
        if cue is None:
            raise ValueError(f"the cue {name} is needed, which is None")
        return cue

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of tiles and of tokens per tile, B and N."""
        batch, num_tokens = next(iter(self._given().values())).shape[:2]
        return batch, num_tokens

    @property
    def device(self) -> torch.device:
        """Where the cues are, and the indices will be."""
        return next(iter(self._given().values())).device

    def _given(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in CUES if getattr(self, name) is not None}
