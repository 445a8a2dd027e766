"""What a report holds, read from the results on disk; ``page`` and ``text`` write it."""

import datetime
import logging
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from llava import provenance
from llava.eval.pictures.gallery import Gallery
from llava.eval.pictures.private import without_folders
from llava.eval.pictures.shown import Section
from llava.eval.results.collect import Group, Measurement, collect
from llava.eval.results.formats import notes
from llava.eval.results.grids import Grid, budgets, memory, overview, scores, times
from llava.eval.results.made import differing, summarized
from llava.eval.results.table import Table, build_tables
from llava.eval.tasks.tables import import_extra
from llava.outputs import nothing_left
from llava.records import InputError, check_output, local_path

logger = logging.getLogger(__name__)

TITLE = "Visual-token pruning"
NOT_PROFILED = (
    "No times: nothing here was run with --profile, which records the time of each stage and the memory. Answers of a "
    "sweep have none."
)
OTHERS = "Not all of these times were taken alike, see {} under environment: compare those that were."


@dataclass(frozen=True)
class Part:
    """The results of one group, which may be compared.

    Args:
        grids: its tables, each with its title.
        notes: what one has to know to read them.
        plot: scores against tokens, SVG.
        sections: the questions that are shown.
    """

    title: str
    grids: Sequence[Grid]
    notes: Sequence[str]
    plot: str
    sections: Sequence[Section]


@dataclass(frozen=True)
class Report:
    """A report.

    Args:
        written: when, and with which version.
        pictures: content of JPEG files, by the names that the sections have for them.
        public: takes what is of this machine alone out of a text; whoever writes a text passes it on through this.
    """

    written: str
    parts: Sequence[Part]
    pictures: Mapping[str, bytes]
    public: Callable[[str], str]


@contextmanager
def outputs_ready(args: Namespace, *paths: str | None) -> Iterator[None]:
    """Check options and places before the work; a block that fails leaves none of the files behind that it made.

    Raises:
        InputError: a device that is not there, or a file that cannot be written.
    """
    if args.checkpoint or args.device:
        from llava.asking.load import check_device_flag

        check_device_flag(args.device)
    outputs = [path for path in paths if path]
    with nothing_left(*outputs):
        for path in outputs:
            check_output(path)
        yield


def read_tables(args: Namespace, named: str = "--eval-dir") -> tuple[list[Table], list[Measurement]]:
    """The tables of the results in ``args.eval_dir``, and the measurements behind them; ``named`` as of ``collect``.

    Raises:
        InputError: ``args.checkpoint`` is empty; names those that there are results of.
    """
    measurements = collect(args.eval_dir, named)
    if args.checkpoint == "":
        raise InputError(f"--checkpoint is without a folder; there are results of {_checkpoints(measurements)}")
    return build_tables(measurements, args.benchmarks, args.published), measurements


def _checkpoints(measurements: Sequence[Measurement]) -> str:
    """The checkpoints that gave the results, each by the name of its folder."""
    return ", ".join(dict.fromkeys(each.group.checkpoint for each in measurements)) or "none"


def read_report(tables: Sequence[Table], measurements: Sequence[Measurement], args: Namespace) -> Report:
    """Put together what is shown.

    Args:
        measurements: behind the tables.
        args: ``eval_dir``, ``data_dir``, ``samples``, ``checkpoint`` and ``device`` of the command line.

    Raises:
        InputError: matplotlib is not installed, or ``checkpoint`` is not that of any result or does not load.
    """
    import_extra("matplotlib")
    if args.checkpoint is None and args.samples:
        logger.info("--checkpoint FOLDER also shows which tokens were kept, of %s", _checkpoints(measurements))
    eval_dir, data_dir = local_path(args.eval_dir), local_path(args.data_dir or args.eval_dir)
    gallery = Gallery(measurements, eval_dir, data_dir, args.samples, args.checkpoint, args.device)
    parts = [_part(table, measurements, gallery, args.samples) for table in tables]
    named = {"RESULTS": eval_dir, "DATA": data_dir} | ({"CHECKPOINT": args.checkpoint} if args.checkpoint else {})
    public = without_folders(**named)
    return Report(_written(), parts, gallery.pictures, public)


def _written() -> str:
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    commit = provenance.commit()
    return f"Written on {today} by llava {provenance.versions()['llava']}" + (f", commit {commit}." if commit else ".")


def _part(table: Table, measurements: Sequence[Measurement], gallery: Gallery, samples: int) -> Part:
    from llava.eval.pictures.plots import draw_table

    measured = [each for each in measurements if each.group == table.group]
    grids = [overview(table)] if len(table.columns) > 1 else []
    grids += [scores(table, column) for column in table.columns if any(column in row.cells for row in table.rows)]
    timed = times(table)
    grids += filter(None, [timed, memory(table), budgets(table), environment(table.group, measured)])
    said, others = notes(table, brackets=False), differing([each.made for each in measured if each.profile])
    said += [] if timed else [NOT_PROFILED]
    said += [OTHERS.format(", ".join(others))] if timed and others else []
    sections = [gallery.section(table, column) for column in table.columns if samples]
    return Part(str(table.group), grids, said, draw_table(table), sections)


def environment(group: Group, measured: Sequence[Measurement]) -> Grid:
    """When, where and with what a group's results were made."""
    lines = [["checkpoint", group.checkpoint], *summarized([each.made for each in measured])]
    return Grid("Environment", ["what", "value"], lines, 2)
