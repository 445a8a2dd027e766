"""What a user says about pruning besides which pruner: checked in one place, before any model is there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llava import layout
from llava.pruners import Pruner, name_of
from llava.pruners.base import INSIDE_CUES
from llava.pruners.checks import is_count

BUDGET_SCOPES = ("tile", "image")
POSITIONS = ("compact", "original")
TEXT_CHUNKING = ("release", "bos_eos")
ATTENTION = ("cls", "received")
RELEVANCE = ("llm_text", "clip_text")


@dataclass(frozen=True)
class PruningOptions:
    """How a pruner's choice is applied to a model.

    Args:
        pruner: chooses the tokens; None is a model without pruning.
        budget_scope: "tile" or "image", what one selection covers; None leaves it to the pruner.
        positions: "compact" numbers the kept tokens without gaps, "original" leaves each its position; None is
            "original" behind a decoder layer, else the model's own.
        prune_layer: decoder layers that see all tokens, 0 or more; 0 prunes before the language model.
        text_chunking: how texts over CLIP's context length are cut, "release" or "bos_eos".
        attention: what is read as attention, "cls" or "received"; None is what the encoder has.
        relevance: what is read as relevance, "llm_text" or "clip_text".
        text_tower: folder or hub id of the CLIP behind "clip_text".

    Raises:
        ValueError: a value that is not one of the valid ones, which it names, or two that exclude each other.
    """

    pruner: Pruner | None = None
    budget_scope: str | None = None
    positions: str | None = None
    prune_layer: int = 0
    text_chunking: str = "release"
    attention: str | None = None
    relevance: str = "llm_text"
    text_tower: str | None = None

    def __post_init__(self) -> None:
        check_choice("budget_scope", self.budget_scope, (None, *BUDGET_SCOPES))
        check_choice("positions", self.positions, (None, *POSITIONS))
        check_choice("text_chunking", self.text_chunking, TEXT_CHUNKING)
        check_choice("attention", self.attention, (None, *ATTENTION))
        check_choice("relevance", self.relevance, RELEVANCE)
        if not is_count(self.prune_layer):
            raise ValueError(f"prune_layer must be an integer, 0 or more, not {self.prune_layer!r}")
        if self.prune_layer and self.positions == "compact":
            raise ValueError(
                "with prune_layer of 1 or more, positions are 'original': tokens are numbered before they go"
            )
        if (self.relevance == "clip_text") != (self.text_tower is not None):
            raise ValueError('relevance="clip_text" and text_tower, the folder or hub id of a CLIP, need one another')
        check_prune_layer(self.pruner, self.prune_layer)


def check_choice(name: str, value: Any, valid: Sequence[Any]) -> None:
    """Raise ValueError, which names them, where ``value`` is none of the ``valid`` ones; None is not named."""
    if value is not None or None not in valid:
        layout.check_key(name, value, [choice for choice in valid if choice is not None])


class Choice:
    """An attribute that takes one of a few values; another is a ValueError when it is set.

    Args:
        default: its value until it is set.
        valid: the values, None among them where it may be left open.
    """

    def __init__(self, default: Any, valid: Sequence[Any]):
        self.default, self.valid = default, valid

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self.default if instance is None else vars(instance).get(self.name, self.default)

    def __set__(self, instance: Any, value: Any) -> None:
        check_choice(self.name, value, self.valid)
        vars(instance)[self.name] = value


def check_prune_layer(pruner: Pruner | None, layer: int) -> None:
    """Raise ValueError for a pruner that cannot choose before decoder layer ``layer``; 0 is before all of them."""
    if pruner is None:
        return
    if layer == 0 and pruner.needs & INSIDE_CUES:
        raise ValueError(f"{name_of(pruner)} needs prune_layer of 1 or more: it reads attention of the language model")
    if layer > 0 and pruner.merges:
        raise ValueError(f"{name_of(pruner)} merges tokens before the projector: it needs prune_layer 0")


def check_texts(texts: Any) -> None:
    """Refuse texts of another form than one string, or one string or None for each prompt; raises TypeError."""
    if texts is None or isinstance(texts, str):
        return
    if not isinstance(texts, Sequence) or isinstance(texts, bytes):
        raise TypeError(f"`texts` must be a string or a list with one for each prompt, not {type(texts).__name__}")
    for text in texts:
        if text is not None and not isinstance(text, str):
            raise TypeError(f"`texts` must be strings or None, not {type(text).__name__}")
