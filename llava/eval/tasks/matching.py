"""What the scorers of published benchmarks share: reading answers, matching them, and the command line."""

import logging
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

from llava.asking.losses import count_losses, told
from llava.eval.tasks.scores import Result, bootstrap_interval, write_result
from llava.records import InputError, read_jsonl
from llava.records import read_json as read_json

logger = logging.getLogger(__name__)

OPTIONAL_KEYS = {"prompt": str, "metadata": (dict, type(None)), "round_id": int}


def read_answers(path: str | Path, *keys: str) -> list[dict[str, Any]]:
    """Read an answers file: objects with ``question_id``, ``text`` and the further string ``keys``.

    What was lost of the questions is said in one line.
    """
    required = {"question_id": (int, str), "text": str} | dict.fromkeys(keys, str)
    return tell_losses(path, read_jsonl(path, required, OPTIONAL_KEYS))


def tell_losses(path: str | Path, answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return ``answers``, and say what they note as lost on the way of their questions."""
    if lost := told(count_losses(answers)):
        logger.warning("%s: of %d questions %s", path, len(answers), lost)
    return answers


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


def percent(scores: Sequence[float]) -> float:
    """The mean, in percent.

    Raises:
        InputError: no scores.
    """
    if not scores:
        raise InputError("no questions to score")
    return 100 * fmean(scores)


def percent_interval(scores: Sequence[float]) -> tuple[float, float]:
    """95 % bootstrap interval of the mean, in percent."""
    low, high = bootstrap_interval(scores)
    return 100 * low, 100 * high


def percent_by(names: Iterable[Any], scores: Iterable[float]) -> dict[str, dict[str, float]]:
    """The mean in percent and the number of scores for every name, sorted by name."""
    groups: dict[Any, list[float]] = {}
    for name, score in zip(names, scores, strict=True):
        groups.setdefault(name, []).append(score)
    return {str(name): {"value": percent(groups[name]), "count": len(groups[name])} for name in sorted(groups)}


def breakdown(groups: Mapping[str, Mapping[str, float]]) -> list[str]:
    """One line for every group of ``percent_by``."""
    return [f"{name}: {group['value']:.2f}% ({group['count']} questions)" for name, group in groups.items()]


def scorer_parser(task: str, doc: str | None, annotation_help: str) -> ArgumentParser:
    """A command line with ``--annotation-file``, ``--result-file`` and ``--output``."""
    parser = ArgumentParser(prog=f"python -m llava.eval score {task}", description=doc)
    parser.add_argument("--annotation-file", required=True, help=annotation_help)
    parser.add_argument("--result-file", required=True, help="answers, one JSON object per line")
    add_output_arg(parser)
    return parser


def add_output_arg(parser: ArgumentParser) -> None:
    """Add ``--output``."""
    parser.add_argument("--output", metavar="FILE.json", help="write the result here as JSON")


@contextmanager
def naming_files(**files: str | Path) -> Iterator[None]:
    """Add the files, under the names of their flags, to an error that comparing them raises."""
    try:
        yield
    except InputError as error:
        named = ", ".join(f"--{flag.replace('_', '-')} {path}" for flag, path in files.items())
        raise InputError(f"{error} ({named})") from error


def publish(result: Result, report: str, output: str | None) -> None:
    """Print the report, say what could not be scored, and write the result to ``output`` if it is given."""
    print(report)
    if result.missing or result.unparsable:
        logger.warning(
            "%s: %d of %d questions without an answer, %d answers that cannot be read",
            *(result.benchmark, result.missing, result.count, result.unparsable),
        )
    if output:
        write_result(result, output)
