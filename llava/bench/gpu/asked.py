"""Prompts that are asked again and again of one model under one pruner."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from llava.bench.e2e import QUESTION
from llava.bench.serve import fixed_length, request
from llava.pruners import Pruner
from llava.pruners.cues import CLIP_TEXT_CUES


def reads_text(pruner: Pruner | None) -> bool:
    """Whether CLIP's text side runs for a pruner."""
    return pruner is not None and bool(pruner.needs & CLIP_TEXT_CUES)


def switch_on_graphs(model: Any) -> str | None:
    """Let a model use CUDA graphs from now on; None, or what stands in the way."""
    try:
        model.cuda_graphs = True
    except ValueError as error:  # it is not on a GPU
        return f"cuda_graphs: {error}"
    return None


@dataclass
class Asked:
    """One model, one pruner and as many prompts: calls that are timed.

    Args:
        new_questions: whether every call asks what was not asked before, so that CLIP's text side runs each time.
    """

    model: Any
    pruner: Pruner | None
    batch: int
    new_questions: bool = False
    # The model remembers every text, those of another pruner too: no two start from the same number.
    _numbers: Iterator[int] = field(default_factory=lambda: count(time.monotonic_ns()))

    def __post_init__(self) -> None:
        self._request = request(self.model, self.batch)

    def prepare(self) -> None:
        self.model.set_pruner(self.pruner)

    def image_side(self) -> Any:
        given = self._questioned()
        return self.model.prepare_inputs_labels_for_multimodal(
            given["inputs"], None, given["attention_mask"], None, None, given["images"], None, given["texts"]
        )

    def answer(self, new_tokens: int) -> Any:
        return self.model.generate(**self._questioned(), **fixed_length(new_tokens))

    def first_token(self) -> Any:
        return self.answer(1)

    def _questioned(self) -> dict[str, Any]:
        if not self.new_questions:
            return self._request
        return self._request | {"texts": [f"{QUESTION} {next(self._numbers)}" for _ in range(self.batch)]}
