"""Image embeddings into the text they belong to: the last step before the language model."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VisualSequence:
    """What the language model reads of one image."""

    embeds: Tensor  # (K, D)
    positions: Tensor  # (K,) where the kept tokens stand in the image's whole sequence, ascending
    length: int  # of that whole sequence


def images_of_rows(input_ids: list[Tensor], num_images: int) -> list[list[int]]:
    """Return the indices of the images that each prompt shows, in order.

    LLaVA gives every prompt without an image a slot of its own, so that a batch has at least one image per row. Both
    ways of counting are understood: with such placeholder images and without. ``input_ids`` has one 1-D tensor per
    prompt, without padding.
    """
    shown = [int((ids == IMAGE_TOKEN_INDEX).sum()) for ids in input_ids]
    imageless = shown.count(0)
    if num_images not in (sum(shown), sum(shown) + imageless):
        raise ValueError(f"the prompts show {sum(shown)} images ({shown} per row), but {num_images} were given")
    slots = [count or int(num_images > sum(shown)) for count in shown]
    starts = [sum(slots[:row]) for row in range(len(slots))]
    return [list(range(start, start + count)) for start, count in zip(starts, shown, strict=True)]


def texts_of_images(texts: str | Sequence[str | None] | None, shown: list[list[int]], images: int) -> list[str | None]:
    """Spread the text of each prompt over the images that it shows; ``shown`` as ``images_of_rows`` returns it."""
    if texts is None or isinstance(texts, str):
        return [texts] * images
    if len(texts) != len(shown):
        raise ValueError(f"`texts` has {len(texts)} entries for {len(shown)} prompts: give one each, or one string")
    of_image: list[str | None] = [None] * images
    for text, indices in zip(texts, shown, strict=True):
        for image in indices:
            of_image[image] = text
    return of_image


def visual_spans(ids: Tensor, images: list[VisualSequence]) -> list[tuple[int, int]]:
    """Where in ``splice_row``'s result the images of a prompt stand: first column and last + 1 of each."""
    spans, grown = [], 0
    for cut, image in zip((ids == IMAGE_TOKEN_INDEX).nonzero().flatten().tolist(), images, strict=True):
        spans.append((cut + grown, cut + grown + len(image.embeds)))
        grown += len(image.embeds) - 1
    return spans


def splice_row(
    ids: Tensor, labels: Tensor, images: list[VisualSequence], embed_tokens: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Put each image in the place of its token.

    Args:
        ids: (L,) one prompt without padding, ``IMAGE_TOKEN_INDEX`` where an image stands; ``labels`` likewise.
        images: one per image token.

    Returns:
        Embeddings (L', D); labels (L',), ``IGNORE_INDEX`` at visual tokens; and the positions (L',) that these tokens
        have when nothing is pruned.
    """
    cuts = (ids == IMAGE_TOKEN_INDEX).nonzero().flatten().tolist()
    bounds = list(zip([-1, *cuts], [*cuts, len(ids)], strict=True))
    text = embed_tokens(torch.cat([ids[start + 1 : stop] for start, stop in bounds]))  # one lookup for all pieces
    pieces = text.split([stop - start - 1 for start, stop in bounds])
    embeds, targets = [pieces[0]], [labels[: bounds[0][1]]]
    positions, position = [torch.arange(len(pieces[0]), device=ids.device)], len(pieces[0])
    for image, piece, (start, stop) in zip(images, pieces[1:], bounds[1:], strict=True):
        embeds += [image.embeds.to(device=text.device, dtype=text.dtype), piece]
        targets += [labels.new_full((len(image.embeds),), IGNORE_INDEX), labels[start + 1 : stop]]
        after = torch.arange(image.length, image.length + len(piece), device=ids.device)
        positions += [position + image.positions.to(ids.device), position + after]
        position += image.length + len(piece)
    return torch.cat(embeds), torch.cat(targets), torch.cat(positions)


def cut_rows(rows: list[tuple[Tensor, ...]], limit: int | None) -> tuple[list[tuple[Tensor, ...]], list[int]]:
    """Cut what ``splice_row`` returned of each prompt at its end, as LLaVA does; None cuts nothing.

    Returns:
        The rows, and how many positions each has lost.
    """
    cut = [0 if limit is None else max(0, len(row[0]) - limit) for row in rows]
    if any(cut):
        logger.warning("prompts longer than tokenizer_model_max_length=%d were cut at their end", limit)
    return [tuple(part[:limit] for part in row) for row in rows], cut


def pad_batch(
    embeds: list[Tensor], labels: list[Tensor], positions: list[Tensor], padding_side: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Stack sequences of different lengths: per row ``embeds`` (L_i, D), ``labels`` and ``positions`` (L_i,).

    Returns:
        Embeddings (B, L, D) padded with zeros, labels (B, L) padded with ``IGNORE_INDEX``, position ids (B, L) padded
        with zeros, and a boolean attention mask (B, L).
    """
    length = max(len(row) for row in embeds)
    first = embeds[0]
    padded = first.new_zeros(len(embeds), length, first.shape[-1])
    padded_labels = labels[0].new_full((len(embeds), length), IGNORE_INDEX)
    position_ids = torch.zeros(len(embeds), length, dtype=torch.long, device=first.device)
    mask = torch.zeros(len(embeds), length, dtype=torch.bool, device=first.device)
    for row, (embed, label, position) in enumerate(zip(embeds, labels, positions, strict=True)):
        start = length - len(embed) if padding_side == "left" else 0
        real = slice(start, start + len(embed))
        padded[row, real], padded_labels[row, real], position_ids[row, real] = embed, label, position
        mask[row, real] = True
    return padded, padded_labels, position_ids, mask
