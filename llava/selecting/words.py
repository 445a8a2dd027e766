"""The words of a question that tokens of its image are held against, as MMTok chooses them."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.utils import encodable

NO_QUESTION = "What do you see in this image?"
"""What is asked of an image of which nothing is asked."""
INSTRUCTIONS = (
    "Answer the question using a single word or phrase.",
    "Answer with the option's letter from the given choices directly.",
)
"""What LLaVA's evaluation adds to questions: it says how to answer, not what to look at."""
COMMON = frozenset(
    "a an the is are was were be been being have has had do does did it they he she we you i "
    "what where when why how who which and or but so if then question answer "
    "to for with by from at into onto upon".split()
)
"""Words that say nothing of a picture, in lower case."""


def strip_question(question: str | None) -> str:
    """The question as it was typed: without the placeholders of images in front of it.

    Where nothing is asked, ``NO_QUESTION`` is; a placeholder without a question behind it leaves an empty text.
    """
    if not question:
        return NO_QUESTION
    lead = f"{DEFAULT_IMAGE_TOKEN}\n"
    if question.startswith(lead):
        return question.removeprefix(lead)
    line, end, rest = question.partition("\n")
    only_images = line.startswith(f"{DEFAULT_IMAGE_TOKEN} ") and set(line.split()) == {DEFAULT_IMAGE_TOKEN}
    return rest if end and only_images else question


def keywords(text: str) -> str:
    """The words of a stripped question that may be seen in a picture, a space between each two.

    A text without any is taken as it is, but for the instructions of how to answer.
    """
    for instruction in INSTRUCTIONS:
        text = text.replace(instruction, "")
    return " ".join(word for word in re.findall(r"\b\w+\b", text) if word.lower() not in COMMON) or text


def words(question: str | None) -> list[str]:
    """The words of a question, each of which is tokenised by itself; there may be none."""
    return keywords(strip_question(question)).split()


def word_ids(tokenizer: Any, given: Sequence[str]) -> list[int]:
    """The ids of words, each tokenised by itself, without the token that begins a text."""
    if not given:
        return []
    ids = tokenizer([encodable(word) for word in given], is_split_into_words=True, verbose=False)["input_ids"]
    return ids[1:] if ids and ids[0] == tokenizer.bos_token_id else ids


@torch.no_grad()
def embed_words(
    ids: Sequence[Sequence[int]], table: Callable[[Tensor], Tensor], device: torch.device, multiple: int = 1
) -> Tensor:
    """The input embeddings of the words of questions, (len(ids), M, D); zeros fill up questions of fewer words.

    Args:
        ids: of the words of each question; there may be none.
        table: the language model's, (R, M) int64 -> (R, M, D).
        device: where the table is.
        multiple: M is one of it, and at least that.
    """
    longest = max(1, *map(len, ids))
    width = -(-longest // multiple) * multiple
    rows = torch.tensor([[*row, *[0] * (width - len(row))] for row in ids])
    real = torch.arange(width) < torch.tensor([[len(row)] for row in ids])
    rows, real = (each.to(device, non_blocking=True) for each in (rows, real))
    embedded = table(rows)
    return torch.where(real.unsqueeze(2).to(embedded.device), embedded, embedded.new_zeros(()))
