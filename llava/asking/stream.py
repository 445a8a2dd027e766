"""An answer piece by piece, while it is generated."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from transformers import TextStreamer

from llava.mm_utils import KeywordsStoppingCriteria


class AnswerStreamer(TextStreamer):
    """Hands on an answer piece by piece while it is generated, up to the template's separator.

    Args:
        tokenizer: decodes the ids; special tokens are dropped.
        stop: text that ends the answer and is no part of it; "" if nothing does.
        show: called with every new piece, never with any of ``stop``.
        skip_prompt: whether what comes first is the prompt, which is not shown.
    """

    def __init__(self, tokenizer: Any, stop: str, show: Callable[[str], Any], skip_prompt: bool = False):
        super().__init__(tokenizer, skip_prompt, skip_special_tokens=True)
        self.stop = stop
        self.show = show
        self.text = ""
        self.shown = 0

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Show what is certain to belong to the answer: a beginning of ``stop`` is held back until it is told apart."""
        self.text += text
        before, found, _ = self.text.partition(self.stop) if self.stop else (self.text, "", "")
        ready = len(before)
        if not found and not stream_end:
            ready -= max((n for n in range(len(self.stop)) if before.endswith(self.stop[:n])), default=0)
        if ready > self.shown:
            self.show(self.text[self.shown : ready])
            self.shown = ready


def streaming(tokenizer: Any, ids: Tensor, show: Callable[[str], Any], stop: str, **options: bool) -> dict[str, Any]:
    """Keywords of ``generate`` that show an answer to the prompt ``ids`` (1, L) and end it at ``stop``."""
    streamed = {"streamer": AnswerStreamer(tokenizer, stop, show, **options)}
    return streamed | ({"stopping_criteria": [KeywordsStoppingCriteria([stop], tokenizer, ids)]} if stop else {})
