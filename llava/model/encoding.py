"""A batch of images into what the language model reads of it: known from sizes what can be, and one pass of tensors."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from llava.model.layout import ImageLayout
from llava.pruners.cues import CLIP_TEXT_CUES
from llava.selecting.options import PruningOptions
from llava.selecting.parts import Visual
from llava.selecting.planning import Plan, plan_of
from llava.selecting.relevance import Embedded


@dataclass(frozen=True, eq=False)
class ImagePlan:
    """What is known of a batch of images before a pixel is read.

    Args:
        options: how they are pruned.
        layouts: of each image.
        texts: of each image, whether it has a question.
        choice: how tokens are chosen; None where nothing is, or inside the language model.
        where: (L,) of all tokens of all sequences, the place among the patches of the batch, counted through; the
            number of patches for a newline token. None where both are counted alike.
        reads: for each group of ``choice``, (R, P) such places of its tokens; None for all patches in order.
        newlines: whether there are newline tokens.
        device: where the tensors are.
    """

    options: PruningOptions
    layouts: Sequence[ImageLayout]
    texts: Sequence[bool]
    choice: Plan | None
    where: Tensor | None
    reads: Sequence[Tensor | None]
    newlines: bool
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
        """Whether ``encode`` does it all: nothing is merged, nor chosen inside the language model."""
        pruner = self.options.pruner
        return pruner is None or not (self.options.prune_layer or pruner.merges)

    def cue_names(self, image: int) -> frozenset[str]:
        """The cues that are read of an image; at a decoder layer, states stand for its embeddings."""
        needs = self.options.needs - {"embeds"} if self.options.prune_layer else self.options.needs
        return needs if self.texts[image] else needs - CLIP_TEXT_CUES

    def visuals(self, cues: Mapping[str, Tensor] = MappingProxyType({}), newline: Tensor | None = None) -> list[Visual]:
        """The images, with what is read of cues (B, N, ...) of all tiles of the batch."""
        return [
            layout.visual({name: cues[name] for name in self.cue_names(image) & cues.keys()}, newline)
            for image, layout in enumerate(self.layouts)
        ]

    def gather(self, embeds: Tensor, kept: Sequence[Tensor | None], newline: Tensor | None) -> Tensor:
        """The embeddings (K, D) of the kept tokens of all images, from those of all patches (B, N, D)."""
        return torch.cat([layout.take(embeds, own, newline) for layout, own in zip(self.layouts, kept, strict=True)])

    def to(self, device: torch.device) -> "ImagePlan":
        """The same with its tensors on another device."""
        where, *reads = (
            None if each is None else each.to(device, non_blocking=True) for each in (self.where, *self.reads)
        )
        choice = None if self.choice is None else self.choice.to(device)
        return replace(self, choice=choice, where=where, reads=reads, device=device)


def plan_images(options: PruningOptions, layouts: Sequence[ImageLayout], texts: Sequence[bool]) -> ImagePlan:
    """Plan how a batch of images is read; see ``ImagePlan``, whose tensors are on the CPU."""
    plan = ImagePlan(options, layouts, texts, None, None, (), any(layout.newline is not None for layout in layouts))
    patches = sum(layout.tiles for layout in layouts) * layouts[0].patches
    where = torch.cat([layout.places(patches) for layout in layouts])
    in_order = torch.arange(patches)
    if not torch.equal(where, in_order):
        plan = replace(plan, where=where)
    if options.pruner is None or options.prune_layer:
        return plan
    visuals = [
        Visual(len(layout.order), layout.parts, dict.fromkeys(plan.cue_names(image)), layout.newline)
        for image, layout in enumerate(layouts)
    ]
    choice = plan_of(options, visuals)
    places = [where[torch.arange(rows.shape[1])[None] if rows.ids is None else rows.ids] for rows in choice.groups]
    reads = [None if torch.equal(each.flatten(), in_order) else each for each in places]
    return replace(plan, choice=choice, reads=reads)


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

    Returns:
        Embeddings (K, D) of the kept tokens of all images, one after the other, and their positions (K,) in the
        sequences of their images; None where all tokens are kept.
    """
    needs = plan.options.needs
    with stage("vision"):
        features, cues = (tower(images), {}) if plan.choice is None else tower.with_cues(images, needs, embedded)
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
        known = {"features": features, "embeds": embeds, **cues}
        known = {name: known[name].to(embeds.device) for name in needs & known.keys()}
        keeps = [
            rows.keep(
                {
                    name: _read(known[name], places, rows.shape, patches if name == "embeds" else None)
                    for name in rows.names
                }
            )
            for rows, places in zip(plan.choice.groups, plan.reads, strict=True)
        ]
        ids = plan.choice.kept(keeps)
        places = ids if plan.where is None else plan.where[ids]
    return patches.index_select(0, places), plan.choice.positions(ids)


def _read(cue: Tensor, places: Tensor | None, shape: tuple[int, int], patches: Tensor | None) -> Tensor:
    """A cue (B, N, ...) of rows of tokens, (R, P) = ``shape``; ``patches`` has newline tokens besides, if given."""
    if places is not None:
        return (cue.flatten(0, 1) if patches is None else patches)[places]
    return cue.contiguous() if cue.shape[:2] == shape else cue.flatten(0, 1).unflatten(0, shape)
