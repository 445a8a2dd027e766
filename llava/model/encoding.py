"""A batch of images into what the language model reads of it: known from sizes what can be, and one pass of tensors."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from llava.model.layout import ImageLayout
from llava.pruners.cues import CUES, QUESTION_CUES, TEXT_FORMS
from llava.selecting.attention import OBJECT_LAYER
from llava.selecting.options import PruningOptions
from llava.selecting.parts import Visual
from llava.selecting.planning import Plan, Rows, plan_of
from llava.selecting.relevance import Embedded


@dataclass(frozen=True, eq=False)
class ImagePlan:
    """What is known of a batch of images before a pixel is read.

    Args:
        options: how they are pruned.
        layouts: of each image.
        texts: of each image, whether it has a question.
        choice: how tokens are chosen; None where nothing is, or inside the language model, or where how many are kept
            depends on what the images show.
        where: (L,) of all tokens of all sequences, the place among the patches of the batch, counted through; the
            number of patches for a newline token. None where both are counted alike.
        reads: for each group of ``choice``, (R, P) such places of its tokens; None for all patches in order.
        asks: for each group of ``choice``, (R,) a tile of the image that each row is of, whose question it has; None
            for all tiles in order.
        newlines: whether there are newline tokens.
        given: cues (B, N) that are known of all tiles.
        directions: (m, C) in which ``sensitivity`` is measured; None where it is not read.
        device: where the tensors are.
    """

    options: PruningOptions
    layouts: Sequence[ImageLayout]
    texts: Sequence[bool]
    choice: Plan | None
    where: Tensor | None
    reads: Sequence[Tensor | None]
    asks: Sequence[Tensor | None]
    newlines: bool
    given: Mapping[str, Tensor] = field(default_factory=dict)
    directions: Tensor | None = None
    device: torch.device = torch.device("cpu")

    @property
    def lengths(self) -> list[int]:
        """How many tokens the sequence of each image has before pruning."""
        return [len(layout.order) for layout in self.layouts]

    @property
    def counts(self) -> Sequence[int]:
        """How many of them the language model is given."""
        return self.lengths if self.choice is None else self.choice.counts

    @property
    def in_one_pass(self) -> bool:
        """Whether ``encode`` does it all: nothing is merged, nor chosen inside the language model, nor counted late."""
        pruner = self.options.pruner
        return pruner is None or not (self.options.prune_layer or pruner.merges or self.options.varies)

    @property
    def counted(self) -> bool:
        """Whether ``counts`` are what the language model is given: known before the images are seen."""
        return bool(self.options.prune_layer) or not self.options.varies

    def cue_names(self, image: int) -> frozenset[str]:
        """The cues that are read of an image's tokens; at a decoder layer, states stand for its embeddings."""
        unknown = {"premerger"} if "padding" in self.given else {"premerger", "padding"}
        unknown |= {"embeds"} if self.options.prune_layer else set()
        return self._asked(image) & frozenset(CUES) - unknown

    def text_names(self, image: int) -> frozenset[str]:
        """The cues that are read of an image's question."""
        return self._asked(image) & TEXT_FORMS.keys()

    def _asked(self, image: int) -> frozenset[str]:
        return self.options.needs if self.texts[image] else self.options.needs - QUESTION_CUES

    @property
    def object_layer(self) -> int:
        """The block of ``object_attention``."""
        return object_layer(self.options)

    def visuals(self, cues: Mapping[str, Tensor] = MappingProxyType({}), newline: Tensor | None = None) -> list[Visual]:
        """The images, with what is read of cues (B, N, ...) and (B, M, ...) of all tiles of the batch."""
        found = []
        for image, layout in enumerate(self.layouts):
            visual = layout.visual({name: cues[name] for name in self.cue_names(image) & cues.keys()}, newline)
            texts = {name: cues[name][layout.first_tile] for name in self.text_names(image) & cues.keys()}
            found.append(replace(visual, texts=texts))
        return found

    def gather(self, embeds: Tensor, kept: Sequence[Tensor | None], newline: Tensor | None) -> Tensor:
        """The embeddings (K, D) of the kept tokens of all images, from those of all patches (B, N, D)."""
        return torch.cat([layout.take(embeds, own, newline) for layout, own in zip(self.layouts, kept, strict=True)])

    def to(self, device: torch.device) -> "ImagePlan":
        """The same with its tensors on another device."""
        (where, directions), reads, asks = (
            [None if each is None else each.to(device, non_blocking=True) for each in group]
            for group in ([self.where, self.directions], self.reads, self.asks)
        )
        given = {name: cue.to(device, non_blocking=True) for name, cue in self.given.items()}
        choice = None if self.choice is None else self.choice.to(device)
        moved = {"choice": choice, "where": where, "reads": reads, "asks": asks, "given": given}
        return replace(self, **moved, directions=directions, device=device)


def plan_images(
    options: PruningOptions,
    layouts: Sequence[ImageLayout],
    texts: Sequence[bool],
    given: Mapping[str, Tensor] = MappingProxyType({}),
    directions: Tensor | None = None,
) -> ImagePlan:
    """Plan how a batch of images is read; see ``ImagePlan``, whose tensors are on the CPU."""
    newlines = any(layout.newline is not None for layout in layouts)
    plan = ImagePlan(options, layouts, texts, None, None, (), (), newlines, given, directions)
    patches = sum(layout.tiles for layout in layouts) * layouts[0].patches
    where = torch.cat([layout.places(patches) for layout in layouts])
    in_order = torch.arange(patches)
    if not torch.equal(where, in_order):
        plan = replace(plan, where=where)
    if options.pruner is None or options.prune_layer or options.varies:
        return plan
    visuals = [
        Visual(
            len(layout.order),
            layout.parts,
            dict.fromkeys(plan.cue_names(image)),
            layout.newline,
            dict.fromkeys(plan.text_names(image)),
        )
        for image, layout in enumerate(layouts)
    ]
    choice = plan_of(options, visuals)
    places = [where[torch.arange(rows.shape[1])[None] if rows.ids is None else rows.ids] for rows in choice.groups]
    reads = [None if torch.equal(each.flatten(), in_order) else each for each in places]
    tiles = [torch.tensor([layouts[image].first_tile for image, _ in rows.owners]) for rows in choice.groups]
    asks = [None if torch.equal(each, torch.arange(patches // layouts[0].patches)) else each for each in tiles]
    return replace(plan, choice=choice, reads=reads, asks=asks)


def object_layer(options: PruningOptions) -> int:
    """The block of the encoder, counted from 1, whose attention a pruner asks for as ``object_attention``."""
    asked = {} if options.pruner is None else options.pruner.asks("object_attention")
    return asked.get("layer", OBJECT_LAYER)


@dataclass(frozen=True, eq=False)
class ImageBatch:
    """Images to read: their plan, their tiles (B, 3, H, W) and the question of each tile, None without one."""

    plan: ImagePlan
    pixels: Tensor
    texts: list[str | None]


def encode(
    plan: ImagePlan,
    tower: Any,
    project: Callable[[Tensor], Tensor],
    images: Tensor,
    embedded: Embedded,
    newline: Tensor | None = None,
    stage: Callable[[str], AbstractContextManager[None]] = lambda name: nullcontext(),
    measure: Callable[[Tensor], dict[str, Tensor]] = lambda features: {},
) -> tuple[Tensor, Tensor | None]:
    """Vision tower, cues, projector, choice and gathering: tensors alone pass through, nothing is read back.

    Args:
        plan: ``in_one_pass``, best with its tensors on the device of the projector.
        tower: a ``CLIPVisionTower``.
        project: the projector.
        images: (B, 3, H, W), the tiles of all images.
        embedded: the questions of the tiles, as the tower's ``embed_texts`` returns them, or what calls it.
        newline: (D,) the embedded newline token.
        stage: what a stage runs under.
        measure: gives the cues (B, N) that features make with the projector beside its output.

    Returns:
        Embeddings (K, D) of the kept tokens of all images, one after the other, and their positions (K,) in the
        sequences of their images; None where all tokens are kept.
    """
    needs = plan.options.needs
    with stage("vision"):
        if plan.choice is None:
            features, cues = tower(images), {}
        else:
            features, cues = tower.with_cues(images, needs, embedded, plan.object_layer)
    with stage("projector"):
        embeds = project(features)
    if plan.device != embeds.device:  # of a model that is spread over several, parts of which are moved as they run
        plan = plan.to(embeds.device)
    patches = embeds.flatten(0, 1)  # (B * N, D)
    if plan.newlines:
        patches = torch.cat([patches, newline.to(patches).unsqueeze(0)])
    if plan.choice is None:
        return patches if plan.where is None else patches.index_select(0, plan.where), None
    with stage("selection"), torch.no_grad():
        known = {"features": features, "embeds": embeds, **cues, **plan.given, **measure(features)}
        ids = _chosen(plan, {name: known[name].to(embeds.device) for name in needs & known.keys()}, patches)
        places = ids if plan.where is None else plan.where[ids]
    return patches.index_select(0, places), plan.choice.positions(ids)


def _chosen(plan: ImagePlan, known: Mapping[str, Tensor], patches: Tensor) -> Tensor:
    """The kept tokens of all images in order, (K,), counted through their sequences; by cues of all tiles."""
    return plan.choice.kept(
        rows.keep(_read_all(known, rows, places, tiles, patches))
        for rows, places, tiles in zip(plan.choice.groups, plan.reads, plan.asks, strict=True)
    )


def _read_all(
    known: Mapping[str, Tensor], rows: Rows, places: Tensor | None, tiles: Tensor | None, patches: Tensor
) -> dict[str, Tensor]:
    """The cues of rows, from those of all tiles: of their tokens (R, P, ...) and of their questions (R, M, ...)."""
    cues = {name: _read(known[name], places, rows.shape, patches if name == "embeds" else None) for name in rows.names}
    return cues | {name: known[name] if tiles is None else known[name][tiles] for name in rows.texts}


def _read(cue: Tensor, places: Tensor | None, shape: tuple[int, int], patches: Tensor | None) -> Tensor:
    """A cue (B, N, ...) of rows of tokens, (R, P) = ``shape``; ``patches`` has newline tokens besides, if given."""
    if places is not None:
        return (cue.flatten(0, 1) if patches is None else patches)[places]
    return cue.contiguous() if cue.shape[:2] == shape else cue.flatten(0, 1).unflatten(0, shape)
