"""A model in this process, which answers with another pruner at every call."""

import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from llava.asking.llava import LlavaModel
from llava.asking.model import Model
from llava.eval.pictures.figures import PATCH_PIXELS, fade_dropped
from llava.eval.pictures.overlays import kept_masks, views
from llava.model.encoding import object_layer
from llava.pruners import PRUNERS
from llava.pruners.cues import INSIDE_CUES
from llava.records import InputError
from llava.selecting.options import PruningOptions
from llava.web.asked import NONE, Told, streamed

HOSTED_BUDGET = 64  # of a model whose tiles have as many tokens as the picture makes them


class Local:
    """Answers with a model that is loaded here.

    Args:
        model: answers several calls at a time, each with a pruner of its own.
        max_new_tokens: longest answer.
        at_once: calls at a time.
        knows: what a visitor should know of the model; "" where there is nothing to say.

    Attributes:
        pruners: names of those that can be chosen for one call.
        tokens: visual tokens of a tile; None where the picture decides.
    """

    def __init__(self, model: Model, max_new_tokens: int, at_once: int, knows: str = ""):
        self.model, self.max_new_tokens, self.at_once, self.knows = model, max_new_tokens, at_once, knows
        self.pool = ThreadPoolExecutor(at_once, thread_name_prefix="answer")
        self.pruners = [name for name in PRUNERS if fits(model, name)]
        self.tokens = model.model.get_vision_tower().num_patches if isinstance(model, LlavaModel) else None
        self.pruner = "cdpruner"

    @property
    def name(self) -> str:
        """What the page calls the model."""
        return self.model.name

    @property
    def budget(self) -> int:
        """The budget that the page begins with."""
        return HOSTED_BUDGET if self.tokens is None else max(1, self.tokens // 8)

    def warm(self, picture: Image.Image) -> None:
        """Answer once with and once without the first pruner, in every thread: no visitor's time has loading in it.

        A checkpoint without CLIP's text side begins with a pruner that reads no question.
        """
        for pruner in ("cdpruner", "divprune"):
            self.pruner = pruner
            try:
                for each in (pruner, NONE):
                    once = partial(self._call, picture, "What is this?", each, self.budget, lambda piece: None, 1)
                    wait([self.pool.submit(once) for _ in range(self.at_once)])
                    self.pool.submit(once).result()
                return
            except InputError:
                if pruner == "divprune":
                    raise

    def check(self, pruner: str, budget: Any) -> None:
        """Raise InputError, in words for the visitor, for a choice that cannot be answered with."""
        if pruner == NONE:
            return
        if pruner not in self.pruners:
            raise InputError(f"There is no pruner {pruner!r} here.")
        if isinstance(budget, bool) or not isinstance(budget, int) or budget < 1:
            raise InputError("Visual tokens: a whole number from 1 up says how many are kept.")
        if self.tokens is not None and budget > self.tokens:
            raise InputError(f"Visual tokens: a tile of this model has {self.tokens}; choose 1 to {self.tokens}.")

    def ask(self, picture: Image.Image, question: str, pruner: str, budget: int) -> Generator[str, None, Told]:
        """Yield the answer as it grows, and return what came of it.

        Args:
            picture: RGB.
            pruner: one of ``pruners``, or ``NONE``.
            budget: visual tokens kept per tile.

        Raises:
            InputError: what the model refuses, in its words.
        """
        return streamed(self.pool, lambda show: self._call(picture, question, pruner, budget, show))

    def _call(
        self,
        picture: Image.Image,
        question: str,
        pruner: str,
        budget: int,
        show: Callable[[str], Any],
        max_new_tokens: int | None = None,
    ) -> Told:
        chosen = None if pruner == NONE else {"pruner": pruner, "visual_token_num": budget}
        longest = self.max_new_tokens if max_new_tokens is None else max_new_tokens
        start, first = time.perf_counter(), []

        def shown(piece: str) -> None:
            first.append(time.perf_counter() - start)
            show(piece)

        try:
            answer = self.model.answer(picture, question, show=shown, pruning=chosen, max_new_tokens=longest)
        except (TypeError, ValueError, NotImplementedError) as error:
            raise InputError(str(error).replace(str(Path.home()), "~")) from error
        seconds = time.perf_counter() - start
        notes = [f"The answer of {pruner} ends after {longest} tokens, the most here."] * bool(
            answer.lost.get("unfinished")
        )
        if chosen and answer.visual_tokens == answer.tokens_before:
            notes.append(f"{pruner} dropped nothing: the picture has {answer.tokens_before} visual tokens.")
        return Told(
            answer.text,
            seconds,
            first[0] if first else None,
            answer.visual_tokens,
            answer.tokens_before,
            answer.prompt_tokens,
            self._pictures(picture, answer),
            notes,
        )

    def _pictures(self, picture: Image.Image, answer: Any) -> list[np.ndarray]:
        """What the encoder saw, dropped patches faded; of LLaVA's own format alone it is known where a token lies."""
        if not isinstance(self.model, LlavaModel):
            return []
        keep = None if answer.keep is None else answer.keep[0]
        seen = views(picture, self.model.image_processor, self.model.model.config)
        masks = kept_masks(keep, picture.size, self.model.model)
        return [fade_dropped(view, mask, PATCH_PIXELS // len(seen)) for view, mask in zip(seen, masks, strict=True)]


def fits(model: Model, pruner: str) -> bool:
    """Whether calls of a model can be pruned so, with the pruner's own options."""
    cls = PRUNERS[pruner]
    if cls.needs & INSIDE_CUES:  # they need hooks on a layer of the language model, which all calls share
        return False
    if not isinstance(model, LlavaModel):
        return True
    try:
        layer = object_layer(PruningOptions(cls(visual_token_num=1)))
        model.model.get_vision_tower().check_cues(cls.needs, layer)
    except ValueError:  # of blocks that the encoder does not have
        return False
    return True
