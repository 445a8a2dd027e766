"""Questions to Transformers' models, as their processors read them: alone, or in a conversation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llava.asking.chat import History
from llava.asking.conversations import Turn, conversation
from llava.asking.prompts import lmms_query
from llava.asking.questions import Question

LOADING = ("device_map", "attn_implementation", "revision", "min_pixels", "max_pixels", "chat_template")
LOADING += ("max_frames_num",)
"""Keywords of ``load_vlm`` beside device, dtype and what prunes."""


@dataclass(frozen=True)
class Item:
    """A question as the processor reads it.

    Args:
        turn: what the user says and shows.
        prompt: that by the chat template, behind the turns before it.
        query: what relevance-based pruners compare with the images.
        lost: what was lost of the question already, by the names of ``llava.asking.losses``.
    """

    turn: Turn
    prompt: str
    query: str
    lost: Mapping[str, Any] = field(default_factory=dict)


class HostedHistory(History):
    """A conversation by the processor's chat template.

    Args:
        processor: of the checkpoint.
        visuals: what is shown, as ``conversation`` reads it.
        max_frames: frames read of a video.
        readable: returns a text without what the processor takes for an image, and how many such words it had.
    """

    def __init__(
        self,
        processor: Any,
        visuals: Sequence[Any],
        max_frames: int,
        readable: Callable[[str], tuple[str, int]],
    ):
        self.processor, self.readable = processor, readable
        self.shown = conversation(Question("", lambda: list(visuals), "the conversation"), max_frames)
        self.messages: list[dict[str, Any]] = []

    def item(self, question: str) -> Item:
        text, removed = self.readable(question)
        turn = Turn([*([] if self.messages else self.shown.content), _text(text)], self.shown.visuals)
        prompt = self._prompt([*self.messages, {"role": "user", "content": turn.content}], waiting=True)
        return Item(turn, prompt, lmms_query(text), {"placeholders": removed})

    def add(self, question: str, answer: str) -> None:
        self.messages += [
            {"role": "user", "content": self.item(question).turn.content},
            {"role": "assistant", "content": [_text(self.readable(answer)[0])]},
        ]

    def text(self) -> str:
        return self._prompt(self.messages, waiting=False)

    def _prompt(self, messages: list[dict[str, Any]], waiting: bool) -> str:
        return self.processor.apply_chat_template(messages, add_generation_prompt=waiting, tokenize=False)


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text.strip()}
