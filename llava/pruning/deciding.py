"""What is kept of a batch of prompts: asked of the pruner once, and remembered for calls that read them again."""

import threading
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from llava.pruners.cues import CLIP_TEXT_CUES
from llava.pruning.encoded import same
from llava.pruning.families import Family
from llava.pruning.prompts import Prompts, questions
from llava.selecting.at_layer import QueryAttention
from llava.selecting.late import Decision, decide
from llava.selecting.options import PruningOptions
from llava.selecting.per_thread import PerThread
from llava.selecting.relevance import ClipRelevance

LOADING = threading.Lock()  # one thread loads what several ask for


class Decisions:
    """Decides what is kept of the prompts of a model of ``family``, for each thread by itself."""

    def __init__(self, family: Family):
        self.family = family
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
        texts: str | Sequence[str] | None,
        attention: QueryAttention | None = None,
    ) -> Decision:
        """Return what is kept of prompts: as decided before, if these are the same and tokens behind them.

        Args:
            options: with a pruner.
            prompts: the batch, (B, L).
            embeds: (B, L, D) that the language model, or its layer ``prune_layer``, is given.
            texts: the question of each prompt, or one for all, where CLIP weighs relevance.
            attention: gives a row of attention inside the language model; None before it.
        """
        ids, last = prompts.ids, self._last.value
        if last is None or last[0] is not options or not _continued(prompts, last[1]):
            clip, copies = self.clip_of(options), prompts.copies
            asked = None if clip is None else questions(texts, len(ids) // copies)
            placed = prompts.related(options.needs, embeds, clip, asked)
            decision = decide(options, placed, embeds, prompts.real, attention, copies)
            self._last.value = last = options, prompts, decision
        decision = last[2].grown(*ids.shape)
        return replace(decision, keep=decision.keep & prompts.real)


def _continued(prompts: Prompts, before: Prompts) -> bool:
    """Whether prompts are those of before, with tokens behind them or none."""
    length = before.ids.shape[1]
    alike = len(prompts.ids) == len(before.ids) and same(prompts.encoded, before.encoded)
    return alike and torch.equal(prompts.ids[:, :length], before.ids)
