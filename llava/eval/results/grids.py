"""What a table of results shows, as grids of texts: every format, the page and the report print these."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from llava.eval.results import beside
from llava.eval.results.profile import NOISE_NOTE, Profile
from llava.eval.results.table import Cell, Row, Table, title
from llava.model.stages import STAGES

PAIRED = (
    "how many only the model without a pruner answers rightly, how many only the "
    "pruned one does, and McNemar's exact two-sided p-value of the two, not corrected for the number of rows; where an "
    "answer can be partly right, which of them answers it better, and the sign test. Rows of several seeds have none."
)
TIME_NOTE = "Milliseconds per question, a question's share of its batch, and throughput; first batches left out."
MEMORY_NOTE = (
    "MiB. Cache: what the language model holds in keys and values of a question's visual tokens, computed from their "
    "number; the text comes on top. Most held: measured, since the process began, with the weights; on a GPU what "
    "torch held there, elsewhere the whole process."
)
NOISY = {True: "yes", False: "no"}


@dataclass(frozen=True)
class Grid:
    """A table of texts.

    Args:
        title: what it is about.
        heading, rows: the texts, as many in every row as in the heading.
        words: how many columns at the left hold words; the others hold numbers.
        notes: what one has to know to read it.
        floors: the numbers of the rows that show what no pruner should fall below.
    """

    title: str
    heading: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int
    notes: Sequence[str] = ()
    floors: frozenset[int] = frozenset()

    def each(self, change: Callable[[str], str]) -> "Grid":
        """The same with every text changed."""
        heading, *rows = ([change(text) for text in row] for row in [self.heading, *self.rows])
        return replace(self, title=change(self.title), heading=heading, rows=rows, notes=list(map(change, self.notes)))


def show(measured: float | None, published: float | None) -> str:
    """``measured (published, difference)``, with what there is of the three."""
    if measured is None:
        return "" if published is None else f"({published:.1f})"
    return f"{measured:.1f}" if published is None else f"{measured:.1f} ({published:.1f}, {measured - published:+.1f})"


def heading(table: Table) -> list[str]:
    """The headings of ``line``."""
    return ["pruner", "setting", "tokens", *map(title, table.columns), "average", "% of unpruned"]


def line(table: Table, row: Row, paired: bool = True) -> list[str]:
    """A row as text: a star where questions were left unanswered, then how it does beside no pruner."""
    texts = {key: show(*pair) for key, pair in table.entries(row).items()}
    for column, cell in row.cells.items():
        texts[column] += "*" if cell.unanswered else ""
        texts[column] += f" {cell.paired}" if cell.paired and paired else ""
    return [*_named(table, row), _tokens(row.visual_tokens) + _over_layers(row), *texts.values()]


def _named(table: Table, row: Row) -> list[str]:
    seeds = max((cell.seeds for cell in row.cells.values()), default=1)
    name = row.pruner + (f", {seeds} seeds" if seeds > 1 else "") + (" (floor)" if row.is_floor else "")
    return [name, "_".join(filter(None, [row.label, table.limit]))]


def _tokens(number: float | None) -> str:
    return "" if number is None else f"{number:.1f}".removesuffix(".0")


def _over_layers(row: Row) -> str:
    """The mean over layers, in words, of a row whose tokens go behind one of them."""
    mean = row.kept and row.kept.over_layers
    return "" if mean is None else f" ({mean:.1f} over layers)"


def overview(table: Table) -> Grid:
    """The rows beside all benchmarks at once."""
    rows = [line(table, row, paired=False) for row in table.rows]
    return Grid("All benchmarks", heading(table), rows, 2, floors=_floors(table.rows))


def _floors(rows: Sequence[Row]) -> frozenset[int]:
    return frozenset(number for number, row in enumerate(rows) if row.is_floor)


SCORES = ("pruner", "setting", "tokens", "score", "95 % interval", "published", "% of unpruned")
SCORES += ("right only unpruned", "right only pruned", "p", "questions", "unanswered")


def scores(table: Table, column: str) -> Grid:
    """The rows of one benchmark, each with its interval and how it does beside no pruner, question by question."""
    rows = [row for row in table.rows if column in row.cells]
    texts = [[*_named(table, row), *_scored(table, row, column)] for row in rows]
    heads, kept = _filled(SCORES, texts)
    compared = any(row.cells[column].paired for row in rows)
    notes = [f"Right only unpruned and only pruned: {PAIRED}"] if compared else []
    return Grid(f"{title(column)}: scores", heads, kept, 2, notes, _floors(rows))


def _scored(table: Table, row: Row, column: str) -> list[str]:
    cell, reference = row.cells[column], table.unpruned.get(column)
    printed = (row.published.values if row.published else {}).get(column)
    low_high = f"{cell.ci95[0]:.1f} to {cell.ci95[1]:.1f}" if cell.ci95 else ""
    paired = cell.paired
    beside_none = [str(paired.lost), str(paired.won), paired.p_text] if paired else [""] * 3
    return [
        _tokens(cell.visual_tokens) + _over_layers(row),
        f"{cell.value:.1f}",
        low_high,
        "" if printed is None else f"{printed:.1f}",
        f"{100 * cell.value / reference:.1f}" if reference else "",
        *beside_none,
        str(cell.count),
        str(cell.unanswered or ""),
    ]


def _filled(heads: Sequence[str], rows: Sequence[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows without the columns that are empty in every row."""
    used = [number for number in range(len(heads)) if any(row[number] for row in rows)]
    return [heads[number] for number in used], [[row[number] for number in used] for row in rows]


TIME_HEADING = ["pruner", "setting", "benchmark", *STAGES, "decode per token", "all", "questions/s"]


def times(table: Table) -> Grid | None:
    """What was profiled, a line for every row and benchmark; None where nothing was."""
    profiled = _profiled(table)
    if not profiled:
        return None
    plain = {column: profile for row, column, profile in profiled if row.cells[column] is _unpruned(table, column)}
    rows, faster, noisy = [], [], []
    for row, column, profile in profiled:
        values = [*profile.stages.values(), profile.latency_ms, profile.questions_per_second]
        rows.append([row.pruner, row.label, title(column), *("" if v is None else f"{v:.1f}" for v in values)])
        faster.append(f"{plain[column].latency_ms / profile.latency_ms:.2f}" if column in plain else "")
        noisy.append(NOISY[profile.noisy])
    heads, notes = list(TIME_HEADING), [TIME_NOTE]
    if len(plain) < len(profiled) and any(faster):
        heads, rows = [*heads, "times faster"], [[*row, text] for row, text in zip(rows, faster, strict=True)]
        notes.append(
            "Times faster: all, without a pruner, over all with it, of the same questions; noisy rows say little."
        )
    if NOISY[True] in noisy:
        heads, rows = [*heads, "noisy"], [[*row, text] for row, text in zip(rows, noisy, strict=True)]
        notes.append(NOISE_NOTE)
    return Grid("Time", heads, rows, 3, notes, _floors([row for row, _, _ in profiled]))


def _profiled(table: Table) -> list[tuple[Row, str, Profile]]:
    found = [(row, column, cell.profile) for row in table.rows for column, cell in row.cells.items()]
    return [(row, column, profile) for row, column, profile in found if profile]


def _unpruned(table: Table, column: str) -> Cell | None:
    return next((row.cells.get(column) for row in table.rows if row.is_unpruned), None)


def memory(table: Table) -> Grid | None:
    """What answering took of memory, where it was recorded; None where it was not."""
    held = [each for each in _profiled(table) if None not in (each[2].kv_mb, each[2].peak_mb)]
    if not held:
        return None
    rows = [
        [row.pruner, row.label, title(column), f"{profile.kv_mb:.2f}", f"{profile.peak_mb:.0f}"]
        for row, column, profile in held
    ]
    heads = ["pruner", "setting", "benchmark", "cache of visual tokens", "most held"]
    return Grid("Memory", heads, rows, 3, [MEMORY_NOTE], _floors([row for row, _, _ in held]))


def budgets(table: Table) -> Grid | None:
    """Rows whose budgets follow the picture, and those beside them; None where there are none."""
    rows = beside.budget_lines(table)
    return Grid("Budgets", beside.HEADING, rows, 3, [beside.NOTE]) if rows else None
