"""What is kept of a batch of prompts: asked of the pruner once, and remembered for calls that read them again."""

import threading
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from llava.pruners.cues import CLIP_TEXT_CUES
from llava.pruning.encoded import same
from llava.pruning.families import Family
from llava.pruning.prompts import Prompts, Texts, questions
from llava.selecting.at_layer import QueryAttention
from llava.selecting.late import Decision, Placed, decide
from llava.selecting.options import PruningOptions
from llava.selecting.per_thread import PerThread
from llava.selecting.relevance import ClipRelevance
from llava.selecting.words import embed_words, word_ids

LOADING = threading.Lock()  # one thread loads what several ask for


class Decisions:
    """Decides what is kept of the prompts of a model of ``family``, for each thread by itself.

    ``tokenizer`` is the model's, for pruners that read words.
    """

    def __init__(self, family: Family, tokenizer: Any = None):
        self.family, self.tokenizer = family, tokenizer
        self._clip: ClipRelevance | None = None
        self._last: PerThread[tuple[PruningOptions, Prompts, Decision] | None] = PerThread()

    def clip_of(self, options: PruningOptions) -> ClipRelevance | None:
        """CLIP's text side where relevance is read by it, loaded when it first is; raises as ``ClipRelevance.load``."""
        if options.text_tower is None or not options.needs & CLIP_TEXT_CUES:
            return None
        with LOADING:
            if self._clip is None:
                width = self.family.clip_layer_norm().normalized_shape[-1]
                self._clip = ClipRelevance.load(options.text_tower, width, options.text_chunking)
        return self._clip

    def of(
        self,
        options: PruningOptions,
        prompts: Prompts,
        embeds: Tensor,
        texts: Texts,
        attention: QueryAttention | None = None,
    ) -> Decision:
        """Return what is kept of prompts: as decided before, if these are the same and tokens behind them.

        Args:
            options: with a pruner.
            prompts: the batch, (B, L).
            embeds: (B, L, D) that the language model, or its layer ``prune_layer``, is given.
            texts: the question of each prompt, or one for all, where they are read.
            attention: gives a row of attention inside the language model; None before it.
        """
        ids, last = prompts.ids, self._last.value
        if last is None or last[0] is not options or not _continued(prompts, last[1]):
            clip, copies = self.clip_of(options), prompts.copies
            by_words = "text_tokens" in options.needs
            asked = questions(texts, len(ids) // copies) if by_words or clip is not None else None
            placed = prompts.related(options.needs, embeds, clip, asked)
            placed = self._with_words(placed, asked) if by_words else placed
            decision = decide(options, placed, embeds, prompts.real, attention, copies)
            self._last.value = last = options, prompts, decision
        decision = last[2].grown(*ids.shape)
        return replace(decision, keep=decision.keep & prompts.real)

    def _with_words(self, placed: list[Placed], asked: list[str | None]) -> list[Placed]:
        """The same with the embeddings of the words of their questions."""
        table, known = self.family.base.get_input_embeddings(), {}
        device = next((weight.device for weight in table.parameters()), torch.device("cpu"))
        for text in {asked[each.row] for each in placed} - {None}:
            ids = word_ids(self.tokenizer, self.family.words(text))
            known[text] = {"text_tokens": embed_words([ids], table, device)[0]}
        return [
            replace(each, visual=replace(each.visual, texts={**each.visual.texts, **known.get(asked[each.row], {})}))
            for each in placed
        ]


def _continued(prompts: Prompts, before: Prompts) -> bool:
    """Whether prompts are those of before, with tokens behind them or none."""
    length = before.ids.shape[1]
    alike = len(prompts.ids) == len(before.ids) and same(prompts.encoded, before.encoded)
    return alike and torch.equal(prompts.ids[:, :length], before.ids)
