"""A batch of prompts: which of their columns hold which image or video, and what these have to do with the text."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

from torch import Tensor
from torch.nn.functional import normalize

from llava.pruners.cues import CLIP_TEXT_CUES, TEXT_FORMS
from llava.pruning.families import Family
from llava.selecting.late import Placed
from llava.selecting.options import check_texts
from llava.selecting.parts import Visual
from llava.selecting.relevance import ClipRelevance

Texts = str | Sequence[str | None] | None
"""The question of each prompt, None of one that has none; or one for all."""


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
        """Images and videos in the order of the prompts, copies of these left out."""
        return sorted(self._found(), key=lambda entry: (entry.row, int(entry.columns[0])))

    def text(self, row: int) -> Tensor:
        """The columns of a prompt, copies not counted, that are neither padding nor visual tokens."""
        return (self.real[:: self.copies][row] & ~self.visual[:: self.copies][row]).nonzero().flatten()

    def related(
        self, needs: frozenset[str], embeds: Tensor, clip: ClipRelevance | None, texts: list[str | None] | None
    ) -> list[Placed]:
        """``placed``, each with what it has to do with its prompt's text, of the cues in ``needs``.

        Args:
            needs: names of cues.
            embeds: (B, L, D) of the batch.
            clip: weighs patches against the question; None weighs the embeddings against the prompt's others.
            texts: the question of each prompt, for ``clip``; None of one that has none.
        """
        if not needs & CLIP_TEXT_CUES:
            return self.placed
        found = []
        for each in self.placed:
            if clip is not None and texts[each.row] is None:
                known = {}
            elif clip is not None:
                known = clip.cues(needs, each.visual.cues["clip_patches"].unsqueeze(0), [texts[each.row]])
                known = {name: cue[0] for name, cue in known.items()}
            else:
                own = embeds[:: self.copies][each.row]
                ways = {"relevance": text_relevance, "dot_relevance": text_product}
                known = {name: ways[name](own[each.columns], own[self.text(each.row)]) for name in needs & ways.keys()}
                known = {name: cue for name, cue in known.items() if cue is not None}
            of_text = {name: known.pop(name) for name in TEXT_FORMS.keys() & known.keys()}
            visual = replace(each.visual, cues={**each.visual.cues, **known}, texts={**each.visual.texts, **of_text})
            found.append(replace(each, visual=visual))
        return found

    def _found(self) -> Iterator[Placed]:
        for modality in self._shown():
            first_copies = self.ids[:: self.copies]
            rows, columns = (first_copies == self.family.token_id(modality)).nonzero(as_tuple=True)
            visuals = self.family.grouped(self.encoded[modality], rows, columns)
            lengths = [visual.length for visual in visuals]
            for visual, row, places in zip(visuals, rows.split(lengths), columns.split(lengths), strict=True):
                yield Placed(visual, int(row[0]), places)

    def _shown(self) -> list[str]:
        """The modalities that the prompts show."""
        return [name for name in self.encoded if (self.ids == self.family.token_id(name)).any()]


def text_relevance(embeds: Tensor, text: Tensor) -> Tensor | None:
    """Cosine of every visual token to the mean of the prompt's other embeddings, (L, D), (L', D) -> (L,).

    None when there is no other embedding.
    """
    if not len(text):
        return None
    return normalize(embeds.float(), dim=1) @ normalize(text.float().mean(dim=0), dim=0)


def text_product(embeds: Tensor, text: Tensor) -> Tensor | None:
    """Dot product of every visual token with the mean of the prompt's other embeddings, (L, D), (L', D) -> (L,)."""
    return embeds.float() @ text.float().mean(dim=0) if len(text) else None


def questions(texts: Texts, prompts: int) -> list[str | None]:
    """Return the question of each prompt, None of one that has none, from one for each or one for all."""
    check_texts(texts)
    texts = [texts] * prompts if isinstance(texts, str) else list(texts or [])
    if len(texts) != prompts:
        raise ValueError(
            'relevance="clip_text", and a pruner that reads words, need the question of each prompt: `texts` has '
            f"{len(texts)} entries for {prompts} prompts. Give `texts` to prune, or set it on what prune returns"
        )
    return texts
