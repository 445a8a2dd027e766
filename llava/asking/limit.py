"""Prompts that would lose their end, refused by the name of their question."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from llava.model.splice import PromptTooLong
from llava.records import InputError


@contextmanager
def naming_question(texts: Sequence[str]) -> Iterator[None]:
    """Turn the refusal of a prompt of a batch into an ``InputError`` that names its question."""
    try:
        yield
    except PromptTooLong as error:
        raise InputError(f"the question {texts[error.row]!r:.60} would lose its end: {error}") from error
