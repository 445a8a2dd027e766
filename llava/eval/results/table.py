"""Tables of results: pruners and budgets down, benchmarks across, one table for each group that may be compared."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from llava.eval.results.budgets import Kept
from llava.eval.results.collect import Group, Measurement
from llava.eval.results.paired import Paired, compare
from llava.eval.results.profile import Profile, merge
from llava.eval.results.published import UNPRUNED, Published, find_published, published_of
from llava.eval.tasks import TASKS
from llava.records import InputError

NO_PRUNER = (UNPRUNED, "full")


@dataclass(frozen=True)
class Cell:
    """What was measured on one benchmark, averaged over seeds where there are several.

    Args:
        ci95: of a single measurement.
        seeds: measurements averaged.
        unanswered: questions without an answer.
        count: questions scored.
        visual_tokens: mean number the language model read, None if unknown.
        kept: how much was kept, where that is more than one number.
        profile: how long answering took, None if that was not measured.
        lost: how many questions lost something on their way, by the names of ``llava.asking.losses``.
        paired: the comparison with the run without a pruner, question by question; None where there is none.
    """

    value: float
    ci95: tuple[float, float] | None
    seeds: int
    unanswered: int
    visual_tokens: float | None
    paths: tuple[Path, ...]
    count: int = 0
    kept: Kept | None = None
    profile: Profile | None = None
    lost: Mapping[str, int] = field(default_factory=dict)
    paired: Paired | None = None


@dataclass(frozen=True)
class Row:
    """One pruner at one setting; without cells it is a paper's row alone."""

    pruner: str
    label: str
    cells: Mapping[str, Cell]
    published: Published | None

    @property
    def is_floor(self) -> bool:
        """Whether it shows what no pruner should fall below: tokens at random, or none."""
        return self.pruner == "random" or self.label.startswith("vtn_0")

    @property
    def is_unpruned(self) -> bool:
        """Whether it shows what the others are held against."""
        return (self.pruner, self.label) == NO_PRUNER

    @property
    def visual_tokens(self) -> float | None:
        """Mean over the benchmarks, None if unknown."""
        known = [cell.visual_tokens for cell in self.cells.values() if cell.visual_tokens is not None]
        return fmean(known) if known else None

    @property
    def kept(self) -> Kept | None:
        """How much was kept where that is more than one number; means over the benchmarks."""
        return Kept.mean_of([cell.kept for cell in self.cells.values()])

    @property
    def measured(self) -> dict[str, float]:
        """The values by benchmark."""
        return {column: cell.value for column, cell in self.cells.items()}


@dataclass(frozen=True)
class Table:
    """The rows of one group: unpruned first, then larger budgets before smaller ones, floors last."""

    group: Group
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def unpruned(self) -> dict[str, float]:
        """What was measured here without a pruner, by benchmark."""
        return next((row.measured for row in self.rows if row.is_unpruned), {})

    @property
    def limit(self) -> str:
        """What a row says beside its setting where the first questions alone were asked, such as ``limit100``."""
        return next((word for word in self.group.variant.split("_") if word.startswith("limit")), "")

    def entries(self, row: Row) -> dict[str, tuple[float | None, float | None]]:
        """What a row shows: the number measured and the published one, None where there is none.

        Keys are the columns, ``average`` (percent) and ``relative`` (mean percentage of the unpruned row, of the same
        paper for published numbers). The last two are None unless every column has a number: means over different
        benchmarks do not compare.
        """
        published = row.published.values if row.published else {}
        pairs = {column: (row.measured.get(column), published.get(column)) for column in self.columns}
        pairs["average"] = (self._average(row.measured), self._average(published))
        reference = self._published_unpruned(row.published)
        pairs["relative"] = (self._relative(row.measured, self.unpruned), self._relative(published, reference))
        return pairs

    def _average(self, values: Mapping[str, float]) -> float | None:
        if not all(column in values for column in self.columns):
            return None
        return fmean(values[column] / per_percent(column) for column in self.columns)

    def _relative(self, values: Mapping[str, float], reference: Mapping[str, float]) -> float | None:
        if not all(column in values and reference.get(column) for column in self.columns):
            return None
        return 100 * fmean(values[column] / reference[column] for column in self.columns)

    def _published_unpruned(self, row: Published | None) -> Mapping[str, float]:
        """The values without a pruner of the paper that a row comes from."""
        rows = [other for other in published_of(self.group) if row is not None and other.protocol is row.protocol]
        return next((other.values for other in rows if other.method == UNPRUNED), {})


def per_percent(column: str) -> float:
    """Points of a column's metric that count as one percent."""
    name = column.split(" ")[0]
    return TASKS[name].per_percent if name in TASKS else 1.0


def title(column: str) -> str:
    """A column's heading: the benchmark's title, with its split where that is not the usual one."""
    name, _, split = column.partition(" ")
    return f"{TASKS[name].title if name in TASKS else name} {split}".strip()


def build_tables(
    measurements: Sequence[Measurement], columns: Sequence[str] = (), with_published: bool = False
) -> list[Table]:
    """Arrange results.

    Args:
        columns: benchmarks to show, all of them if none is named.
        with_published: also give the papers' rows of methods and budgets that were not measured here.

    Raises:
        InputError: a benchmark that was not measured, two results for one place, or results of one group and benchmark
            over different numbers of questions; names the files.
    """
    known = {measurement.column for measurement in measurements}
    if unknown := [column for column in columns if column not in known]:
        raise InputError(f"no results for {', '.join(unknown)}; there are some for {', '.join(sorted(known))}")
    chosen = [measurement for measurement in measurements if not columns or measurement.column in columns]
    return [_table(group, chosen, with_published) for group in sorted({each.group for each in chosen})]


def _table(group: Group, measurements: Sequence[Measurement], with_published: bool) -> Table:
    members = [measurement for measurement in measurements if measurement.group == group]
    _check_same_counts(members)
    places: dict[tuple[str, str], dict[str, list[Measurement]]] = {}
    for each in members:
        places.setdefault((each.setting.pruner, each.setting.label), {}).setdefault(each.column, []).append(each)
    unpruned = {column: found[0] for column, found in places.get(NO_PRUNER, {}).items()}
    rows = [
        Row(*place, {c: _cell(found, unpruned.get(c)) for c, found in cells.items()}, find_published(group, *place))
        for place, cells in places.items()
    ]
    if with_published:
        shown = [row.published for row in rows]
        rows += [_published_row(row) for row in published_of(group) if row not in shown]
    columns = sorted({each.column for each in members}, key=_position)
    return Table(group, tuple(columns), tuple(sorted(rows, key=_row_order)))


def _published_row(row: Published) -> Row:
    label = "full" if row.visual_token_num is None else f"vtn_{row.visual_token_num}"
    return Row(row.method, label, {}, row)


def _check_same_counts(members: Sequence[Measurement]) -> None:
    first: dict[str, Measurement] = {}
    for each in members:
        other = first.setdefault(each.column, each)
        if other.count != each.count:
            raise InputError(
                f"{each.column}: {other.path} scores {other.count} questions, {each.path} {each.count}; "
                "answer the same questions, or move one of the two away"
            )


def _cell(found: Sequence[Measurement], unpruned: Measurement | None) -> Cell:
    """Seeds of one setting, averaged; a single one is compared with ``unpruned``, what was measured without a pruner.

    Raises:
        InputError: two results for one seed.
    """
    by_seed: dict[int, Measurement] = {}
    for each in found:
        other = by_seed.setdefault(each.setting.seed, each)
        if other is not each:
            raise InputError(f"two results for one place in the table: {other.path} and {each.path}; move one away")
    tokens = [each.visual_tokens for each in found if each.visual_tokens is not None]
    against = unpruned.scores if unpruned is not None and unpruned is not found[0] and len(found) == 1 else None
    return Cell(
        value=fmean(each.value for each in found),
        ci95=found[0].ci95 if len(found) == 1 else None,
        seeds=len(found),
        unanswered=sum(each.unanswered for each in found),
        visual_tokens=fmean(tokens) if tokens else None,
        count=found[0].count,
        kept=Kept.mean_of([each.kept for each in found]),
        paths=tuple(each.path for each in found),
        profile=merge([each.profile for each in found if each.profile]),
        lost=sum((Counter(each.lost) for each in found), Counter()),
        paired=compare(against, found[0].scores),
    )


def _position(column: str) -> tuple[int, str]:
    names = [*TASKS, column.split(" ")[0]]
    return names.index(names[-1]), column


def _row_order(row: Row) -> tuple:
    """Unpruned, then by budget from large to small and by name, floors last."""
    kind, _, budget = row.label.partition("_")
    size = float(budget.split("_")[0]) if budget else 0.0
    return row.is_floor, row.pruner != UNPRUNED, kind, -size, row.pruner, row.label, not row.cells
