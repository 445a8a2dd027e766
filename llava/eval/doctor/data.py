"""Look at the data of benchmarks, and at a checkpoint, before a run: what is there, what is missing, what is wrong.

Ends with status 1 if a benchmark that is named cannot run, or if the checkpoint will not load. Files are counted and
matched with each other; no checksum is published for any of them.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from llava.command import Parser
from llava.eval.doctor.findings import Finding, can_go_on
from llava.eval.tasks import TASKS, find_task
from llava.eval.tasks.base import Task
from llava.eval.tasks.files import EVAL_DIR, DataFile, Images, Records
from llava.records import InputError, local_path


def diagnose(
    name: str,
    eval_dir: str | Path = EVAL_DIR,
    data_dir: str | Path | None = None,
    split: str | None = None,
    any_size: bool = False,
) -> list[Finding]:
    """Look at everything that running and scoring a benchmark reads.

    Args:
        name: one of ``TASKS``.
        eval_dir: the folder of all benchmarks' question files.
        data_dir: that of their images and annotations; ``eval_dir`` if not given.
        split: one of the benchmark's splits, its usual one if not given.
        any_size: files with more or fewer rows than the release's are no problem: some of the questions are asked.

    Raises:
        InputError: no such benchmark or split; names the valid ones.
    """
    task, split = find_task(name, split or "")
    folder, data = local_path(eval_dir) / task.folder, local_path(data_dir or eval_dir) / task.folder
    findings: list[Finding] = []

    def read(file: DataFile) -> Records | None:
        return _read_file(file, file.find(folder, data), findings, "size" if any_size else "wrong")

    questions = read(task.splits[split])
    if questions is None and can_go_on(findings):
        made_from = [file for file in task.splits.values() if file.path == task.splits[split].made_from]
        questions = next(map(read, made_from), None)
        if questions is None and can_go_on(findings):
            return findings  # a run makes the questions, and everything that belongs to them
    if task.images:
        findings.append(look_at_images(task.images, data, questions))
    annotations = list(map(read, task.annotations))
    if task.match and can_go_on(findings) and None not in annotations:
        findings.append(_match(task, questions, annotations, data / task.images.path))
    if task.judged or not task.scored(split):
        findings.append(Finding("note", name, f"scored by {task.server}"))
    return findings


def _read_file(file: DataFile, path: Path, findings: list[Finding], unlike: str) -> Records | None:
    """Look at one file and return what it holds, None if that cannot be used.

    Args:
        unlike: status of a file whose number of rows is not the release's.
    """
    if not path.is_file():
        made = file.made_from is not None
        fault = f"not there yet: {file.source}" if made else f"no such file; get it: {file.source}"
        findings.append(Finding("note" if made else "missing", path, fault, file.source))
        return None
    try:
        records = file.read(path)
    except InputError as error:
        findings.append(
            Finding("wrong", path, f"{str(error).removeprefix(f'{path}: ')}; get it: {file.source}", file.source)
        )
        return None
    found = f"{len(records)} rows"
    if file.rows is None:
        findings.append(Finding("ok", path, f"{found} (nobody says how many there should be)"))
    elif len(records) == file.rows:
        findings.append(Finding("ok", path, found))
    else:
        findings.append(Finding(unlike, path, f"{found} instead of {file.rows}; get it: {file.source}", file.source))
    return records


def look_at_images(images: Images, data: Path, questions: Records | None) -> Finding:
    """Whether the folder of images is there, and every image that the questions name is in it."""
    folder = data / images.path
    source = images.source if images.gigabytes is None else f"{images.source} ({images.gigabytes:g} GB)"
    if not folder.is_dir():
        return Finding("missing", folder, f"no such folder; get the images: {source}", source, images.gigabytes)
    names = {record[images.key] for record in questions or () if isinstance(record.get(images.key), str)}
    listed: dict[str, set[str]] = {}
    for parent in {os.path.dirname(name) for name in names}:
        try:
            listed[parent] = set(os.listdir(folder / parent))
        except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a name that no folder can have
            listed[parent] = set()
        except OSError as error:
            return Finding("wrong", folder / parent, f"cannot be listed: {error.strerror}")
    absent = sorted(name for name in names if os.path.basename(name) not in listed[os.path.dirname(name)])
    if absent:
        fault = f"{len(absent)} of {len(names)} images are not there, such as {absent[0]}"
        return Finding("missing", folder, f"{fault}; get them: {source}", source, images.gigabytes)
    return Finding("ok", folder, f"{len(names)} images")


def _match(task: Task, questions: Records, annotations: Sequence[Records], images: Path) -> Finding:
    """Whether the annotations of a benchmark are for its questions."""
    what, source = f"{task.name} annotations", (*task.annotations, task.images)[0].source
    try:
        task.match(questions, annotations, images)
    except InputError as error:
        return Finding("wrong", what, f"{error}; get it: {source}", source)
    return Finding("ok", what, "belong to the questions")


def run_doctor(args: argparse.Namespace) -> None:
    """Print what is found; end with status 1 if a named benchmark cannot run or the checkpoint will not load."""
    places = (args.eval_dir, args.data_dir, args.split, args.any_size)
    reports = {name: diagnose(name, *places) for name in args.benchmarks or TASKS}
    if args.checkpoint:
        # Only a checkpoint needs torch and transformers, which take seconds to import.
        from llava.eval.doctor.checkpoint import diagnose_checkpoint

        reports[f"checkpoint {args.checkpoint}"] = diagnose_checkpoint(args.checkpoint)
    told: dict[str, str] = {}
    for name, findings in reports.items():
        shown = [finding for finding in findings if finding.is_problem or finding.status == "size" or not args.quiet]
        if shown or not args.quiet:
            lines = [_once(finding, name, told) for finding in shown]
            print(f"{name}: {'ready' if can_go_on(findings) else 'not ready'}", *lines, sep="\n")
    if not args.quiet:
        print(summary({name: findings for name, findings in reports.items() if name in TASKS}))
    asked_for = reports if args.benchmarks else [name for name in reports if name not in TASKS]
    if not all(can_go_on(reports[name]) for name in asked_for):
        sys.exit(1)


def _once(finding: Finding, name: str, told: dict[str, str]) -> str:
    """A finding as it is printed; a source that was ``told`` before is named by the benchmark that it was told of."""
    if not finding.source or finding.source not in told:
        told[finding.source] = name
        return str(finding)
    before = "as above" if told[finding.source] == name else f"as for {told[finding.source]}"
    return str(finding).replace(finding.source, before)


def summary(reports: Mapping[str, Sequence[Finding]]) -> str:
    """How many benchmarks are complete, and what there is to download as far as its size is known."""
    complete = sum(map(can_go_on, reports.values()))
    sizes = {each.source: each.gigabytes for found in reports.values() for each in found if each.gigabytes}
    download = f"; to download: {sum(sizes.values()):g} GB and what nobody says the size of" if sizes else ""
    return f"{complete} of {len(reports)} benchmark{'s' * (len(reports) != 1)} complete{download}"


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    return add_args(Parser(prog="python -m llava.eval doctor", description=__doc__))


def add_args(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the flags to a parser, and return it."""
    valid = ", ".join(TASKS)
    parser.add_argument("benchmarks", nargs="*", metavar="BENCHMARK", help=f"{valid}; all if not given")
    parser.add_argument("--eval-dir", default=EVAL_DIR, help="question files and answers")
    parser.add_argument("--data-dir", help="images and annotations; the same as --eval-dir if not given")
    parser.add_argument("--split", help="of the one benchmark named; its usual one if not given")
    parser.add_argument("--checkpoint", metavar="FOLDER", help="also say whether this checkpoint will load")
    parser.add_argument("--any-size", action="store_true", help="files of any number of rows will do; says which")
    parser.add_argument("--quiet", action="store_true", help="print problems only")
    return parser
