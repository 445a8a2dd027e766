"""Image embeddings into the text they belong to: the last step before the language model."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VisualBatch:
    """What the language model reads of a batch of images.

    Args:
        embeds: (K, D) of all images, one after the other.
        positions: (K,) where the kept tokens stand in the whole sequences of their images, ascending; None where all
            are kept.
        counts: how many there are of each image.
        lengths: of the whole sequences.
    """

    embeds: Tensor
    positions: Tensor | None
    counts: Sequence[int]
    lengths: Sequence[int]


@dataclass(frozen=True)
class Span:
    """Where the tokens of an image lie: its first among those of all images, and how many there are."""

    first: int
    count: int
    length: int  # of its whole sequence
    whole: bool = True  # whether all are there, so that their positions are known


def spans_of(counts: Sequence[int], lengths: Sequence[int], whole: bool) -> list[Span]:
    """Count the tokens of a batch of images through; ``whole`` says whether nothing is chosen among them."""
    firsts = accumulate(counts[:-1], initial=0)
    return [Span(*span, whole) for span in zip(firsts, counts, lengths, strict=True)]


def counted_spans(shown: Sequence[Sequence[Span]], visual: VisualBatch) -> list[list[Span]]:
    """The spans of the images of each prompt, in the order in which they were read, now that they are counted."""
    spans = iter(spans_of(visual.counts, visual.lengths, whole=False))
    return [[next(spans) for _ in images] for images in shown]


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


def visual_spans(ids: Tensor, images: Sequence[Span]) -> list[tuple[int, int]]:
    """Where in ``splice_row``'s result the images of a prompt stand: first column and last + 1 of each."""
    spans, grown = [], 0
    for cut, image in zip((ids == IMAGE_TOKEN_INDEX).nonzero().flatten().tolist(), images, strict=True):
        spans.append((cut + grown, cut + grown + image.count))
        grown += image.count - 1
    return spans


def splice_row(
    ids: Tensor, labels: Tensor, images: Sequence[Span], words: int, first_word: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Put each image in the place of its token: bookkeeping on the CPU, which ``embed_rows`` applies.

    Args:
        ids: (L,) one prompt without padding, ``IMAGE_TOKEN_INDEX`` where an image stands; ``labels`` likewise.
        images: one per image token.
        words: the number of other tokens of all prompts, behind which visual tokens are counted.
        first_word: which of these is the prompt's first.

    Returns:
        Sources (L',), the number of each token among words and visual tokens; labels (L',), ``IGNORE_INDEX`` at visual
        tokens; and the positions (L',) that these tokens have when nothing is pruned, of an image that is chosen from
        the position of its first token.
    """
    cuts = (ids == IMAGE_TOKEN_INDEX).nonzero().flatten().tolist()
    bounds = list(zip([-1, *cuts], [*cuts, len(ids)], strict=True))
    word, position = first_word, 0
    sources, targets, positions = [], [], []
    for image, (start, stop) in zip([None, *images], bounds, strict=True):
        if image is not None:
            sources.append(torch.arange(words + image.first, words + image.first + image.count))
            targets.append(labels.new_full((image.count,), IGNORE_INDEX))
            positions.append(position + torch.arange(image.count) * image.whole)
            position += image.length
        piece = stop - start - 1
        sources.append(torch.arange(word, word + piece))
        targets.append(labels[start + 1 : stop])
        positions.append(torch.arange(position, position + piece))
        word, position = word + piece, position + piece
    return torch.cat(sources), torch.cat(targets), torch.cat(positions)


class PromptTooLong(ValueError):
    """A prompt that would lose its end; ``row`` is its place in the batch, from 0."""

    def __init__(self, row: int, length: int, limit: int):
        super().__init__(
            f"it has {length} tokens with those of its images, and the model reads {limit} (tokenizer_model_max_length)"
            ": ask less, or keep fewer visual tokens"
        )
        self.row = row


def cut_rows(
    rows: list[tuple[Tensor, ...]], limit: int | None, may_cut: bool = True
) -> tuple[list[tuple[Tensor, ...]], list[int]]:
    """Cut what ``splice_row`` returned of each prompt at its end, as LLaVA does; None cuts nothing.

    Returns:
        The rows, and how many positions each has lost.

    Raises:
        PromptTooLong: one would lose some, and may not be cut.
    """
    cut = [0 if limit is None else max(0, len(row[0]) - limit) for row in rows]
    if any(cut) and not may_cut:
        row = next(row for row, lost in enumerate(cut) if lost)
        raise PromptTooLong(row, len(rows[row][0]), limit)
    if any(cut):
        logger.warning("prompts longer than tokenizer_model_max_length=%d were cut at their end", limit)
    return [tuple(part[:limit] for part in row) for row in rows], cut


def pad_rows(
    rows: Sequence[tuple[Tensor, Tensor, Tensor]], padding: int, padding_side: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Stack what ``splice_row`` returned of prompts of different lengths; ``padding`` is the source of padding.

    Returns:
        Sources (B, L), labels (B, L) padded with ``IGNORE_INDEX``, positions (B, L) padded with zeros, and a boolean
        attention mask (B, L).
    """
    length = max(len(sources) for sources, _, _ in rows)
    sources = torch.full((len(rows), length), padding)
    labels = rows[0][1].new_full((len(rows), length), IGNORE_INDEX)
    positions, mask = torch.zeros_like(sources), torch.zeros_like(sources, dtype=torch.bool)
    for row, parts in enumerate(rows):
        start = length - len(parts[0]) if padding_side == "left" else 0
        real = slice(start, start + len(parts[0]))
        sources[row, real], labels[row, real], positions[row, real] = parts
        mask[row, real] = True
    return sources, labels, positions, mask


def embed_rows(sources: Tensor, words: Tensor, visual: Tensor | None, padded: bool) -> Tensor:
    """Gather the embeddings of prompts, (B, L, D), in one step, whatever the number of prompts and images.

    Args:
        sources: (B, L) as ``pad_rows`` returns them.
        words: (W, D) embeddings of the words of all prompts.
        visual: (K, D) those of all images.
        padded: whether there is padding, whose source is W + K and whose embedding is zeros.
    """
    parts = [words] if visual is None else [words, visual.to(device=words.device, dtype=words.dtype)]
    parts += [words.new_zeros(1, words.shape[1])] if padded else []
    together = parts[0] if len(parts) == 1 else torch.cat(parts)
    return together.index_select(0, sources.flatten()).unflatten(0, sources.shape)


def shift_positions(positions: Tensor, sources: Tensor, words: int, kept: Tensor) -> Tensor:
    """Give the tokens of images that were chosen from the positions that they have when nothing is pruned, (B, L).

    Args:
        positions: (B, L) as ``pad_rows`` returns them.
        sources: likewise, of ``words``, then visual tokens, then padding.
        kept: (K,) the positions of the visual tokens in their images.
    """
    shifts = torch.cat([kept, kept.new_zeros(1)])
    return positions + shifts[(sources - words).where(sources >= words, len(kept))]
