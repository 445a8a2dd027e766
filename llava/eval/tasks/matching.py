"""Answers matched to annotations."""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llava.records import InputError


def ids(records: Iterable[Mapping[str, Any]], key: str = "question_id") -> list[str]:
    """What records are called, whether it is written as a number or as text."""
    return [str(record[key]) for record in records]


def is_missing(answer: Mapping[str, Any]) -> bool:
    """Whether the record stands for a question that got no answer, its image being unreadable."""
    return "error" in (answer.get("metadata") or {})


def by_question(answers: Iterable[dict[str, Any]], what: str = "answered") -> dict[str, dict[str, Any]]:
    """Answers by ``question_id`` as a string, for benchmarks whose ids are unique.

    Args:
        what: what befell the question, if the records are no answers.

    Raises:
        InputError: two answers to one question.
    """
    found = {}
    for answer in answers:
        question_id = str(answer["question_id"])
        if question_id in found:
            raise InputError(f"question {question_id!r} is {what} twice")
        found[question_id] = answer
    return found


def refuse_repeated(keys: Iterable[Hashable], what: str) -> None:
    """Raise InputError if two of ``keys``, by which ``what`` is recognised, are the same."""
    for key, count in Counter(iter(keys)).items():
        if count > 1:
            raise InputError(f"the {what} {key!r} stands there {count} times")


def check_same_questions(answered: Iterable[Hashable], annotated: Iterable[Hashable]) -> None:
    """Check that the questions answered are those annotated, each as often, in any order.

    Raises:
        InputError: they are not; says how many are on one side only, and names one.
    """
    given, wanted = Counter(iter(answered)), Counter(iter(annotated))
    if given == wanted:
        return
    faults = [f"{given.total()} answers to {wanted.total()} annotated questions"]
    for count, fault in [
        (wanted - given, "without an answer"),
        (given - wanted, "answered but not annotated, or answered too often"),
    ]:
        if count:
            faults.append(f"{count.total()} {fault}, such as {next(iter(count))!r}")
    raise InputError(f"{'; '.join(faults)}: an unfinished run, other questions, or annotations of another release")


@contextmanager
def naming_files(path: str | Path = "", **files: str | Path) -> Iterator[None]:
    """Add the files to an error that comparing them raises: one in front, or several under the names of their flags."""
    try:
        yield
    except InputError as error:
        if path:
            raise InputError(f"{path}: {error}") from error
        named = ", ".join(f"--{flag.replace('_', '-')} {path}" for flag, path in files.items())
        raise InputError(f"{error} ({named})") from error
