"""``score TASK`` and ``submit TASK``: files of answers scored, or written as a server takes them."""

from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llava.eval.results.metadata import check_metadata
from llava.eval.results.parsers import FLAGS
from llava.eval.results.setting import Setting
from llava.eval.tasks.base import Given, Task
from llava.eval.tasks.matching import naming_files
from llava.eval.tasks.scores import Result, publish
from llava.outputs import nothing_left
from llava.records import InputError, check_output, local_path


def score_answers(args: Namespace) -> None:
    """Score ``args.result_file``, print the report and write the result to ``args.output`` if it is given."""
    task: Task = args.task
    with nothing_left(*filter(None, [args.output])):
        if args.output:
            check_output(args.output)
        given = _given(args, (task.verdicts or task.answers).read(args.result_file))
        with naming_files(args.result_file):
            given = _limited(task, given, args.limit)
        score_given(task, given, args.output, **_files(args))


def _limited(task: Task, given: Given, limit: int | None) -> Given:
    """What is scored of a run that asked the first ``limit`` questions, None for one that asked all.

    Raises:
        InputError: the answers are not to so many questions, or say that another limit was set.
    """
    asked = _metadata_of(given.answers).get("run", {}).get("limit")
    if asked is not None and asked != limit:
        raise InputError(f"the answers are to the first {asked} questions: score them with --limit {asked}")
    if limit is None:
        return given
    records = given.answers if isinstance(given.answers, list) else []
    found = len(given.answers) - sum(bool(record.get("round_id")) for record in records)
    if found != limit:
        raise InputError(f"--limit {limit}, but there are answers to {found} questions: an unfinished run, or another")
    return task.narrow(given)


def _metadata_of(answers: Any) -> dict[str, Any]:
    """The metadata of the first answer; a judge's verdicts have none."""
    try:
        return check_metadata(answers[0], "the first answer") if isinstance(answers, list) and answers else {}
    except InputError:  # of another program, whose own matter that is
        return {}


def score_given(task: Task, given: Given, output: str | None, heading: str = "", **files: str | Path) -> Result:
    """Score, print the report and write the result to ``output`` if it is given.

    Args:
        heading: a line above the report.
        files: what an error names, by the attributes of the command line.
    """
    with naming_files(**files):
        result = task.score(given)
    publish(result, "\n".join(filter(None, [heading, task.report(result)])), output, **_stated(task, given.answers))
    return result


def _stated(task: Task, answers: Any) -> dict[str, dict[str, Any]]:
    """What answers say that they were given with, as results state it; nothing of a judge's verdicts."""
    metadata = _metadata_of(answers)
    checkpoint = Path(metadata.get("run", {}).get("model_path", "")).name
    return {"setting": asdict(Setting.of(metadata, checkpoint, task.name))} if "pruner" in metadata else {}


def submit_answers(args: Namespace) -> None:
    """Write ``args.result_file`` to ``args.output`` as a server takes it.

    Raises:
        InputError: a file that cannot be read or written; answers to some of the questions, where a server takes all.
    """
    given = _given(args, args.task.answers.read(args.result_file))
    limit = _metadata_of(given.answers).get("run", {}).get("limit")
    with naming_files(**_files(args)):
        if limit is not None and not args.task.judged:
            raise InputError(f"the answers are to the first {limit} questions alone: nothing to submit")
        args.task.submit(given, local_path(args.output))


def _given(args: Namespace, answers: object) -> Given:
    """The answers, with the files that a command line names."""
    task, questions, annotations, images = args.task, *(getattr(args, name, None) for name in FLAGS.values())
    return Given(
        answers,
        task.questions.read(questions) if questions else None,
        [file.read(path) for file, path in zip(task.truth, annotations or (), strict=False)],
        local_path(images) if images else None,
    )


def _files(args: Namespace) -> dict[str, str]:
    """The files that are compared, by the attributes of the command line."""
    named = {name: getattr(args, name) for name in ("result_file", *(FLAGS[name] for name in args.reads))}
    return {name: path if isinstance(path, str) else " ".join(path) for name, path in named.items()}
