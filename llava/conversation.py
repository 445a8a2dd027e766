"""Conversation templates: how turns become the one prompt string a checkpoint was trained on.

A caller copies a template, appends messages (the last one empty, for the model to fill) and reads the prompt:

    conversation = conv_templates["vicuna_v1"].copy()
    conversation.append_message(conversation.roles[0], "<image>\\nWhat is this?")
    conversation.append_message(conversation.roles[1], None)
    prompt = conversation.get_prompt()
"""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

from llava.constants import DEFAULT_IMAGE_TOKEN

Message = str | tuple | None
Turn = tuple[str, str | None]


class SeparatorStyle(Enum):
    """The ways in which templates join roles, messages and separators."""

    SINGLE = auto()
    TWO = auto()
    MPT = auto()
    PLAIN = auto()
    LLAMA_2 = auto()
    CHATML = auto()


@dataclass
class Conversation:
    """A template, together with the messages said so far.

    Attributes:
        system: text in front of the first turn.
        roles: names of the user and of the assistant, as written in the prompt.
        messages: pairs of a role and its message: a string, None (the model's turn) or, for a message that brings
            an image, ``(text, PIL image, mode)``. Templates hold an empty tuple, so that only a copy can grow.
        offset: number of leading messages that are examples and not part of the dialogue.
        sep_style: how the parts are joined.
        sep: separator, after every turn or after the user's.
        sep2: separator after the assistant's turn, for the styles that have two; None means ``sep``.
        version: family of the template; ``mmtag`` in it changes where the image stands.
    """

    system: str
    roles: tuple[str, str]
    messages: Sequence[Sequence] = ()
    offset: int = 0
    sep_style: SeparatorStyle = SeparatorStyle.SINGLE
    sep: str = "###"
    sep2: str | None = None
    version: str = "Unknown"

    def copy(self) -> "Conversation":
        """Return a conversation whose messages can grow without touching this one's."""
        return replace(self, messages=[list(message) for message in self.messages])

    def append_message(self, role: str, message: Message) -> None:
        """Add a turn at the end; a template itself refuses, take a ``copy`` of it."""
        if not isinstance(self.messages, list):
            raise TypeError("this is a template: append to template.copy(), so that the template stays as it is")
        self.messages.append([role, message])

    def get_prompt(self) -> str:
        """Render system text and turns into the string the tokenizer sees."""
        return _RENDERERS[self.sep_style](self, self._turns())

    def get_images(self, return_pil: bool = False) -> list:
        """Return the images the user sent, as PIL images or as base64 of their PNG files.

        They come as they were sent: padding and resizing is the business of ``process_images``.
        """
        images = [message[1] for _, message in self.messages[self.offset :: 2] if isinstance(message, tuple)]
        return images if return_pil else [_png_base64(image) for image in images]

    def to_gradio_chatbot(self) -> list[list[str | None]]:
        """Return the dialogue as ``[user, assistant]`` pairs, images as inline HTML in front of their text."""
        dialogue = self.messages[self.offset :]
        pairs = [[_as_html(message), None] for _, message in dialogue[::2]]
        for pair, (_, answer) in zip(pairs, dialogue[1::2], strict=False):
            pair[1] = answer
        return pairs

    def dict(self) -> dict:
        """Return the conversation as plain data, images left out."""
        return {
            "system": self.system,
            "roles": self.roles,
            "messages": [[role, _text(message)] for role, message in self.messages],
            "offset": self.offset,
            "sep": self.sep,
            "sep2": self.sep2,
        }

    def _turns(self) -> list[Turn]:
        """Return the turns as text, with the image of a first message that brings one where the template wants it."""
        turns = [(role, _text(message)) for role, message in self.messages]
        if not turns or not isinstance(self.messages[0][1], tuple):
            return turns
        role, question = turns[0][0], turns[0][1].replace(DEFAULT_IMAGE_TOKEN, "").strip()
        if "mmtag" in self.version:
            exchange = [(self.roles[0], f"<Image>{DEFAULT_IMAGE_TOKEN}</Image>"), (self.roles[1], "Received.")]
            return [*exchange, (role, question), *turns[1:]]
        return [(role, f"{DEFAULT_IMAGE_TOKEN}\n{question}"), *turns[1:]]

    def _closing(self, turn: int) -> str:
        """Separator after turn number ``turn``: ``sep`` for the user, ``sep2`` for the assistant."""
        return self.sep2 if turn % 2 and self.sep2 is not None else self.sep


def _text(message: Message) -> str | None:
    return message[0] if isinstance(message, tuple) else message


def _png_base64(image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _as_html(message: Message) -> str | None:
    if not isinstance(message, tuple):
        return message
    picture = f'<img src="data:image/png;base64,{_png_base64(message[1])}" alt="image sent by the user"/>'
    return picture + message[0].replace(DEFAULT_IMAGE_TOKEN, "").strip()


def _render_single(conv: Conversation, turns: list[Turn]) -> str:
    return conv.system + conv.sep + "".join(f"{role}: {text}{conv.sep}" if text else f"{role}:" for role, text in turns)


def _render_two(conv: Conversation, turns: list[Turn]) -> str:
    parts = [f"{role}: {text}{conv._closing(i)}" if text else f"{role}:" for i, (role, text) in enumerate(turns)]
    return conv.system + conv.sep + "".join(parts)


def _render_mpt(conv: Conversation, turns: list[Turn]) -> str:
    return conv.system + conv.sep + "".join(role + text + conv.sep if text else role for role, text in turns)


def _render_plain(conv: Conversation, turns: list[Turn]) -> str:
    return conv.system + "".join(text + conv._closing(i) for i, (_, text) in enumerate(turns) if text)


def _render_llama_2(conv: Conversation, turns: list[Turn]) -> str:
    prompt = ""
    for i, (_, text) in enumerate(turns):
        if not text:
            continue
        if i == 0 and conv.system:
            text = f"<<SYS>>\n{conv.system}\n<</SYS>>\n\n{text}"
        prompt += f" {text} {conv.sep2}" if i % 2 else f"{conv.sep}[INST] {text} [/INST]"
    return prompt.removeprefix(conv.sep)  # the tokenizer adds the first BOS itself


def _render_chatml(conv: Conversation, turns: list[Turn]) -> str:
    system = f"{conv.system}{conv.sep}\n" if conv.system else ""
    return system + "".join(f"{role}\n{text}{conv.sep}\n" if text else f"{role}\n" for role, text in turns)


_RENDERERS: dict[SeparatorStyle, Callable[[Conversation, list[Turn]], str]] = {
    SeparatorStyle.SINGLE: _render_single,
    SeparatorStyle.TWO: _render_two,
    SeparatorStyle.MPT: _render_mpt,
    SeparatorStyle.PLAIN: _render_plain,
    SeparatorStyle.LLAMA_2: _render_llama_2,
    SeparatorStyle.CHATML: _render_chatml,
}

_CHAT_WITH = (
    "A chat between a curious {0} and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the {0}'s questions."
)
_VISUAL_CONTENT = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant is able to understand the visual content that the user provides, "
    "and assist the user with a variety of tasks using natural language."
    "The visual content will be provided with the following format: <Image>visual content</Image>."
)
_LLAMA_2_SYSTEM = (
    "You are a helpful language and vision assistant. "
    "You are able to understand the visual content that the user provides, "
    "and assist the user with a variety of tasks using natural language."
)
_MPT_SYSTEM = (
    "<|im_start|>system\nA conversation between a user and an LLM-based AI assistant. "
    "The assistant gives helpful and honest answers."
)

_two = {"roles": ("USER", "ASSISTANT"), "sep_style": SeparatorStyle.TWO, "sep": " ", "sep2": "</s>"}
_single = {"roles": ("Human", "Assistant"), "sep_style": SeparatorStyle.SINGLE, "sep": "###"}
_mpt = {
    "roles": ("<|im_start|>user\n", "<|im_start|>assistant\n"),
    "sep_style": SeparatorStyle.MPT,
    "sep": "<|im_end|>",
    "version": "mpt",
}
_llama_2 = {
    "roles": ("USER", "ASSISTANT"),
    "sep_style": SeparatorStyle.LLAMA_2,
    "sep2": "</s>",
    "version": "llama_v2",
}
_qwen = {
    "system": "<|im_start|>system\nYou are a helpful assistant.",
    "roles": ("<|im_start|>user", "<|im_start|>assistant"),
    "sep_style": SeparatorStyle.CHATML,
    "sep": "<|im_end|>",
    "version": "qwen",
}

conv_vicuna_v1 = Conversation(system=_CHAT_WITH.format("user"), version="v1", **_two)
conv_llava_v1 = Conversation(system=_CHAT_WITH.format("human"), version="v1", **_two)
conv_llava_v1_mmtag = Conversation(system=_VISUAL_CONTENT, version="v1_mmtag", **_two)
conv_llava_v0 = Conversation(system=_CHAT_WITH.format("human"), **_single)
conv_llava_v0_mmtag = Conversation(system=_VISUAL_CONTENT, version="v0_mmtag", **_single)
conv_mistral_instruct = Conversation(system="", sep="", **_llama_2)
conv_llava_llama_2 = Conversation(system=_LLAMA_2_SYSTEM, sep="<s>", **_llama_2)
conv_chatml_direct = Conversation(system="<|im_start|>system\nAnswer the questions.", **_mpt)
conv_mpt = Conversation(system=_MPT_SYSTEM, **_mpt)
conv_llava_plain = Conversation(system="", roles=("", ""), sep_style=SeparatorStyle.PLAIN, sep="\n")
conv_qwen = Conversation(**_qwen)

conv_templates: dict[str, Conversation] = {
    "v1": conv_vicuna_v1,
    "vicuna_v1": conv_vicuna_v1,
    "llava_v1": conv_llava_v1,
    "v1_mmtag": conv_llava_v1_mmtag,
    "llava_v0": conv_llava_v0,
    "v0_mmtag": conv_llava_v0_mmtag,
    "mistral_instruct": conv_mistral_instruct,
    "llava_llama_2": conv_llava_llama_2,
    "chatml_direct": conv_chatml_direct,
    "mistral_direct": conv_chatml_direct,
    "mpt": conv_mpt,
    "plain": conv_llava_plain,
    "v0_plain": conv_llava_plain,
    "qwen_1_5": conv_qwen,
    "qwen_2": conv_qwen,
}
default_conversation = conv_vicuna_v1

_MODE_BY_NAME = (
    ("llama-2", "llava_llama_2"),
    ("mistral", "mistral_instruct"),
    ("v1.6-34b", "chatml_direct"),
    ("v1", "llava_v1"),
    ("mpt", "mpt"),
)


def conv_mode_for(model_name: str) -> str:
    """Return the key of the template that LLaVA picks for a model of this name when the user names none.

    The first fragment found in the lower-cased name decides, ``llava_v0`` if none is. LLaVA picks ``llava_v1`` for
    v1.5 checkpoints here, although they were trained, and its evaluation scripts run, with ``vicuna_v1``.
    """
    name = model_name.lower()
    return next((mode for fragment, mode in _MODE_BY_NAME if fragment in name), "llava_v0")
