"""A batch of prompts: which of their columns hold which image or video, and what these have to do with the text."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from torch import Tensor

from llava.pruning.families import Family
from llava.selecting.choose import Seen, Visual, text_product, text_relevance
from llava.selecting.options import check_texts
from llava.selecting.relevance import ClipRelevance


@dataclass(frozen=True)
class Placed:
    """An image or video and where it stands."""

    visual: Visual
    row: int  # its prompt; the copies of that follow it
    columns: Tensor  # (L,)


@dataclass(frozen=True, eq=False)
class Prompts:
    """The ids of a batch of prompts and the images and videos that were encoded for it.

    Args:
        family: of the model that reads them.
        ids: (B, L)
        real: (B, L) bool, False for padding.
        encoded: images and videos by modality, in the order of their placeholders.
    """

    family: Family
    ids: Tensor
    real: Tensor
    encoded: Mapping[str, list[Visual]]

    @cached_property
    def visual(self) -> Tensor:
        """Which columns hold a visual token, (B, L)."""
        return self.family.visual_columns(self.ids, self.encoded)

    @cached_property
    def copies(self) -> int:
        """How often each prompt stands in the batch: beams and returned sequences are copies, side by side."""
        copies = set()
        for modality in self._shown():
            placed = int((self.ids == self.family.token_id(modality)).sum())
            copies.add(Fraction(placed, sum(visual.length for visual in self.encoded[modality])))
        if len(copies) != 1 or any(times.denominator != 1 for times in copies):
            raise NotImplementedError(
                "the prompts do not hold every visual token that was encoded: pruning needs whole prompts, each with "
                "its images (chunked prefill is not supported)"
            )
        return int(copies.pop())

    @cached_property
    def placed(self) -> list[Placed]:
        """Images and videos in the order of the prompts, of the first copy of each prompt alone."""
        return sorted(self._found(), key=lambda entry: (entry.row, int(entry.columns[0])))

    def text(self, row: int) -> Tensor:
        """The columns of a prompt that are neither padding nor visual tokens."""
        return (self.real[row] & ~self.visual[row]).nonzero().flatten()

    def _found(self) -> Iterator[Placed]:
        for modality in self._shown():
            first_copies = self.ids[:: self.copies]
            rows, columns = (first_copies == self.family.token_id(modality)).nonzero(as_tuple=True)
            visuals = self.family.grouped(self.encoded[modality], rows, columns)
            lengths = [visual.length for visual in visuals]
            for visual, row, places in zip(visuals, rows.split(lengths), columns.split(lengths), strict=True):
                yield Placed(visual, int(row[0]) * self.copies, places)

    def _shown(self) -> list[str]:
        """The modalities that the prompts show."""
        return [name for name in self.encoded if (self.ids == self.family.token_id(name)).any()]


def in_prompt(
    prompts: Prompts,
    placed: Placed,
    embeds: Tensor,
    needs: frozenset[str],
    clip: ClipRelevance | None = None,
    question: str | None = None,
) -> Seen:
    """Return an image or video with its embeddings, and its relevance to the prompt if that is needed.

    Args:
        prompts: the batch.
        placed: the image or video.
        embeds: (L, D) of its prompt.
        needs: names of cues.
        clip: weighs the patches against ``question``; None weighs the embeddings against the prompt's others.
        question: of the prompt.
    """
    tokens = embeds[placed.columns]
    if clip is not None:
        relevance = {"relevance": clip, "dot_relevance": clip.dot}
        given = placed.visual.clip_patches
        cues = {name: of(given.unsqueeze(0), [question])[0] for name, of in relevance.items() if name in needs}
    else:
        relevance = {"relevance": text_relevance, "dot_relevance": text_product}
        text = embeds[prompts.text(placed.row)]
        cues = {name: of(tokens, text) for name, of in relevance.items() if name in needs}
    return Seen(placed.visual, tokens, **cues)


def questions(texts: str | Sequence[str] | None, prompts: int) -> list[str]:
    """Return the question of each prompt from one for each or one for all."""
    check_texts(texts)
    texts = [texts] * prompts if isinstance(texts, str) else list(texts or [])
    if len(texts) != prompts:
        raise ValueError(
            f'relevance="clip_text" needs the question of each prompt: `texts` has {len(texts)} entries for '
            f"{prompts} prompts. Give `texts` to prune, or set it on what prune returns"
        )
    return texts
