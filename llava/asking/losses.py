"""What an answer's question lost on its way to the model: one vocabulary, in the answer's ``metadata``.

An entry is there only where something was lost. All but ``error`` and ``unfinished`` are numbers.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llava.constants import DEFAULT_IMAGE_TOKEN

logger = logging.getLogger(__name__)

LOSSES = {
    "error": "without an answer, as the metadata say why",
    "cut": "whose prompt lost its end to the length limit of the model",
    "placeholders": "that lost words which stand for images",
    "options_dropped": "that were asked without some of their options",
    "query_cut": "longer than the text encoder reads in one piece, for a pruner that weighs relevance",
    "frames_missing": "about a video of fewer frames than asked for",
    "unfinished": "whose answer reached --max_new_tokens",
}
"""Keys of ``metadata``, and what is said of so many questions: what was lost of

* ``error``: the answer; the value says why;
* ``cut``: the prompt's end, in positions, to ``tokenizer_model_max_length``;
* ``placeholders``: the question, in image or video placeholders, which say nothing to the model but where images go;
* ``options_dropped``: the options beyond those that have a letter;
* ``query_cut``: the text for CLIP, in tokens beyond its context; ``--text_chunking`` says how they are read;
* ``frames_missing``: frames asked for that the video does not have;
* ``unfinished``: the end of the answer; the value is True.
"""


def without_placeholders(text: str, *placeholders: str) -> tuple[str, int]:
    """A text without ``<image>`` and the other ``placeholders``, and how many there were.

    What is left holds none, whatever came to stand side by side.
    """
    removed = 0
    while found := [mark for mark in (DEFAULT_IMAGE_TOKEN, *placeholders) if mark and mark in text]:
        for mark in found:
            removed += text.count(mark)
            text = text.replace(mark, "")
    return text, removed


def noted(losses: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of which something was lost."""
    return {name: value for name, value in losses.items() if value}


def count_losses(answers: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """How many answers lost something, by the names of ``LOSSES``."""
    counts: Counter[str] = Counter()
    for answer in answers:
        metadata = answer.get("metadata")
        counts.update(name for name in LOSSES if isinstance(metadata, Mapping) and metadata.get(name))
    return counts


def warn_of_losses(answers: Sequence[Any]) -> None:
    """Log what was lost of questions that were just answered, for programs that keep no answers."""
    if lost := told(count_losses([{"metadata": answer.lost} for answer in answers])):
        logger.warning("of %d questions %s", len(answers), lost)


def told(counts: Mapping[str, int]) -> str:
    """One line that says what was lost of how many questions; "" where nothing was."""
    return "; ".join(f"{counts[name]} {text} ({name})" for name, text in LOSSES.items() if counts.get(name))
