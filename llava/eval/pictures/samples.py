"""Questions of a benchmark whose answers are worth looking at, with the answers at every setting."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.eval.ask.dataset import QuestionDataset
from llava.eval.ask.forms import dataset_of
from llava.eval.results.collect import Measurement
from llava.eval.results.metadata import check_metadata
from llava.eval.results.table import NO_PRUNER
from llava.eval.tasks import find_task
from llava.eval.tasks.base import Given, Sample
from llava.eval.tasks.scores import written_name
from llava.records import InputError, read_jsonl

Answers = Mapping[tuple[str, str], Sequence[dict[str, Any]]]
"""Lines of the answers files by pruner and setting."""
Scores = Mapping[tuple[str, str], Mapping[str, float]]
"""What they were scored, by pruner and setting, and by what results call the questions."""


@dataclass(frozen=True)
class Questions:
    """The questions of a benchmark as its program asks them."""

    samples: Sequence[Sample]
    make_dataset: Callable[..., QuestionDataset]


def read_questions(column: str, eval_dir: Path, data_dir: Path) -> Questions:
    """Read the questions that the answers of a column are to.

    Raises:
        InputError: the question file cannot be read, or the column is no benchmark of the table.
    """
    name, _, split = column.partition(" ")
    task, split = find_task(name, split.strip("()"))
    return Questions(task.samples(split, eval_dir, data_dir), dataset_of(task.asks))


def read_answers(measurements: Sequence[Measurement], samples: Sequence[Sample]) -> Answers:
    """The answers behind results, by pruner and setting; of several seeds the smallest one's.

    Raises:
        InputError: answers that cannot be read or are to other questions; names the file.
    """
    found: dict[tuple[str, str], Sequence[dict[str, Any]]] = {}
    for each in sorted(measurements, key=lambda measurement: measurement.setting.seed):
        path = each.path.with_suffix(".jsonl")
        if path.is_file() and (each.setting.pruner, each.setting.label) not in found:
            lines = read_jsonl(path, {})
            _check_answers(path, lines, samples[: _limit_of(lines)])
            found[each.setting.pruner, each.setting.label] = lines
    return found


def _limit_of(lines: Sequence[dict[str, Any]]) -> int | None:
    """How many questions were asked, the first of the file; None for all."""
    return check_metadata(lines[0], "the first answer").get("run", {}).get("limit") if lines else None


def _check_answers(path: Path, lines: Sequence[dict[str, Any]], samples: Sequence[Sample]) -> None:
    if len(lines) != len(samples):
        raise InputError(f"{path}: {len(lines)} answers to {len(samples)} questions: other questions, or unfinished")
    for number, (line, sample) in enumerate(zip(lines, samples, strict=True), 1):
        asked = {key: value for key, value in sample.line().items() if key != sample.answer_key}
        check_metadata(line, f"{path}, answer {number}")
        if any(line.get(key) != value for key, value in asked.items()):
            raise InputError(f"{path}, line {number}: not an answer to question {sample.question_id!r}")


def answer_of(line: Mapping[str, Any], sample: Sample) -> str:
    """The text of an answer."""
    return str(line.get(sample.answer_key, ""))


def read_scores(measurements: Sequence[Measurement]) -> Scores:
    """The scores of the answers that ``read_answers`` reads, in [0, 1]; empty where a result has none."""
    found: dict[tuple[str, str], Mapping[str, float]] = {}
    for each in sorted(measurements, key=lambda measurement: measurement.setting.seed):
        found.setdefault((each.setting.pruner, each.setting.label), each.scores)
    return found


def read_truth(column: str, eval_dir: Path, data_dir: Path) -> Mapping[str, str]:
    """The right answers by what results call the questions; empty where there are none here to be read."""
    name, _, split = column.partition(" ")
    task, split = find_task(name, split.strip("()"))
    if task.references is None:
        return {}
    folder, data = eval_dir / task.folder, data_dir / task.folder
    try:
        file = task.splits[split]
        asked = file.read(file.find(folder, data)) if "questions" in task.score_reads else None
        annotations = [file.read(file.find(folder, data)) for file in task.truth]
        given = Given((), asked, annotations, data / task.images.path if task.images else None)
        return {written_name(name): text for name, text in task.references(given).items()}
    except InputError:
        return {}


def name_of(column: str, line: Mapping[str, Any]) -> str:
    """What results call the question that an answer's line is to."""
    try:
        return written_name(find_task(column.partition(" ")[0], "")[0].name_of(line))
    except InputError:  # a line of another form
        return ""


def reference_of(answers: Mapping[tuple[str, str], Any]) -> tuple[str, str]:
    """The setting that the others are compared with: no pruner, or else the first."""
    return NO_PRUNER if NO_PRUNER in answers else next(iter(answers))


def differ(one: str, other: str) -> bool:
    """Whether two answers differ in more than case, surrounding space and a closing period."""
    return one.strip().rstrip(".").lower() != other.strip().rstrip(".").lower()


def choose_questions(answers: Answers, samples: Sequence[Sample], count: int) -> tuple[list[int], int]:
    """The questions with an image that most settings answer otherwise than the reference, these first.

    Returns:
        Their indices, and how many questions there are that any setting answers otherwise.
    """
    reference = answers[reference_of(answers)]

    def changes(index: int) -> int:
        wanted = answer_of(reference[index], samples[index])
        return sum(differ(answer_of(lines[index], samples[index]), wanted) for lines in answers.values())

    shown = [index for index, sample in enumerate(samples) if sample.image is not None]
    return sorted(shown, key=changes, reverse=True)[:count], sum(map(bool, map(changes, range(len(samples)))))
