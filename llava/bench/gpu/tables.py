"""The tables of a document, each made from a run's gpu.json between ``<!-- gpu: NAME -->`` and ``<!-- /gpu -->``."""

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.bench.gpu import figure
from llava.bench.report import cells
from llava.records import InputError, read_utf8, replace_file

BLOCK = re.compile(r"(?<=<!-- gpu: )(?P<name>[\w ]+)(?P<open> -->\n)(?P<content>.*?)(?=<!-- /gpu -->)", re.DOTALL)
NOTHING = "not measured on a GPU"
EMPTY = "Not measured on a GPU.\n"
PICTURE, PICTURE_SAYS = "gpu_pays.svg", "When does it pay: bars of the gain by model, prompts at once and tokens kept"
CAPTION = "How many times faster a 7B of random weights in float16 is with pruned images than without. A bar that ends "
CAPTION += "at the line gains nothing."
LINE = 120  # as long as the lines of the documents
Row = Mapping[str, Any]
Columns = Mapping[str, str]

SELECTION = {"pruner": "{method}", "tokens": "{variant}", "B x N x D": "{B} x {N} x {D}", "T": "{T}"}
SELECTION |= {"wall ms": "{wall_ms:.2f}", "GPU ms": "{gpu_ms:.2f}", "graph ms": "{graph_wall_ms:.2f}"}
SELECTION |= {
    "plain ms": "{reference_wall_ms:.2f}",
    "release ms": "{official_wall_ms:.2f}",
    "floor ms": "{floor_ms:.3f}",
}
SELECTION |= {"same set": "{equal}", "operations": "{ops}", "": "{noisy}"}
IMAGE_SIDE = {"pruner": "{method}", "question": "{question}", "batch": "{B}", "T": "{T}", "graphs": "{graphs}"}
IMAGE_SIDE |= {"image side ms": "{image_side_ms:.2f}", "over uniform": "{over_uniform_ms:.2f}"}
IMAGE_SIDE |= {"prefill ms": "{prefill_ms:.2f}", "share": "{share_of_prefill:.1%}"}
IMAGE_SIDE |= {"first token ms": "{first_token_ms:.2f}", "of none's": "{first_token_of_none:.2f}", "": "{noisy}"}
SATURATION = {"pruner": "{method}", "question": "{question}", "batch": "{B}", "visual": "{visual}"}
SATURATION |= {"images/s": "{images_per_second:.1f}", "p50 ms": "{p50_ms:.0f}", "p99 ms": "{p99_ms:.0f}", "n": "{n}"}
SATURATION |= {"peak GiB": "{peak_gb:.1f}", "out of memory": "{out_of_memory}", "": "{noisy}"}
VISION = {"images": "{B}", "dtype": "{dtype}", "wall ms": "{wall_ms:.2f}", "GPU ms": "{gpu_ms:.2f}"}
VISION |= {"floor ms": "{floor_ms:.2f}", "of eager with all maps": "{ratio_to_reference:.2f}", "equal": "{equal}"}
VISION |= {"extra peak MB": "{peak_mb:.0f}", "of eager's": "{ratio_of_peaks:.2f}", "": "{noisy}"}
PREFILL = {
    "batch": "{B}",
    "visual": "{visual}",
    "with text": "{n}",
    "wall ms": "{wall_ms:.1f}",
    "GPU ms": "{gpu_ms:.1f}",
}
PREFILL |= {"floor ms": "{floor_ms:.1f}", "speed-up": "{speedup:.2f}", "FLOP ratio": "{flop_ratio:.2f}"}
PREFILL |= {"extra peak MB": "{peak_mb:.0f}", "": "{noisy}"}
STAGES = {"pruner": "{method}", "T": "{T}", "vision ms": "{vision_ms:.2f}", "text ms": "{text_ms:.2f}"}
STAGES |= {"projector ms": "{projector_ms:.2f}", "selection ms": "{select_ms:.2f}", "prefill ms": "{prefill_ms:.2f}"}
STAGES |= {"total ms": "{total_ms:.1f}", "speed-up": "{speedup:.2f}", "selection of prefill": "{selection_share:.1%}"}
STAGES |= {"pays below": "{break_even_tokens:.0f}", "": "{noisy}"}
ANSWERS = {"pruner": "{method}", "batch": "{B}", "graphs": "{graphs}", "new tokens": "{new_tokens}"}
ANSWERS |= {"ms": "{answer_ms:.0f}", "speed-up": "{speedup:.2f}", "": "{noisy}"}
LARGEST = {"pruner": "{method}", "largest batch": "{largest_batch}", "memory GiB": "{memory_gb:.0f}"}
EMBEDDED = {"pruner": "{method}", "visual": "{visual}", "batch": "{B}", "images/s": "{images_per_second:.1f}"}
EMBEDDED |= {"p50 ms": "{p50_ms:.1f}", "p99 ms": "{p99_ms:.1f}", "n": "{n}", "largest batch": "{largest_batch}"}
EMBEDDED |= {"": "{noisy}"}
GOALS = {"goal": "{goal}", "pruner": "{method}", "question": "{question}", "value": "{value:.3f}", "target": "{target}"}
GOALS |= {"met": "{met}"}
PARTS = {"part": "{name}", "ended": "{status}", "seconds": "{seconds:.0f}", "rows": "{number}", "why": "{reason}"}


def markdown(columns: Columns, rows: Sequence[Row]) -> str:
    """A table with the columns that have a value in some row; a noisy row says so in its last cell."""
    shown = [row | {"noisy": "noisy" if row.get("noisy") else ""} for row in rows]
    head, *lines = cells(columns, shown)
    lines = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def plain(goals: Sequence[Row]) -> list[str]:
    """The goals, a line each, for the terminal."""
    words = {None: NOTHING, True: "reached", False: "not reached"}
    return [
        f"{row['goal']}: {row['method']} ({row['question']}) "
        f"{'' if row['value'] is None else format(row['value'], '.3f')} [{row['target']}]: {words[row['met']]}"
        for row in goals
    ]


def _of(part: str, columns: Columns, wanted: Callable[[Row], bool] = lambda row: True) -> Callable[[Row], str]:
    """Makes a table of those rows of a part."""

    def table(results: Row) -> str:
        rows = [row for row in results["parts"].get(part, {}).get("rows", ()) if wanted(row)]
        return markdown(columns, rows) if rows else EMPTY

    return table


def _machine(meta: Row) -> str:
    """Card and versions, on one line."""
    card, versions = meta["card"], meta["versions"]
    names = (("torch", "torch"), ("transformers", "Transformers"), ("triton", "Triton"), ("python", "Python"))
    words = [card["name"]] if card else []
    words += [f"{card['memory_gb']:g} GiB, driver {card['driver']}"] if "driver" in card else []
    words += [f"{name} {versions[key]}" for key, name in names if versions.get(key)]
    return f"{', '.join(words)}; commit `{meta['commit']}`, {meta['date'][:10]}"


def _run(results: Row) -> str:
    """Where and with what the run was, and how each of its parts ended."""
    rows = [part | {"name": name, "number": len(part["rows"])} for name, part in results["parts"].items()]
    table = markdown(PARTS, [row | {"reason": row["reason"] or "; ".join(row["notes"])} for row in rows])
    where = f"{_machine(results['meta'])}, {results['meta']['seconds']:.0f} s in all."
    return f"{textwrap.fill(where, LINE)}\n\n{table}"


def _pays(results: Row) -> str:
    """The picture and what it shows."""
    if not figure.cases(results):
        return EMPTY
    caption = f"{CAPTION} Measured on {_machine(results['meta'])}."
    return f"![{PICTURE_SAYS}]({PICTURE})\n\n{textwrap.fill(caption, LINE)}\n"


def _goals(results: Row) -> str:
    return markdown(GOALS, [row | ({} if row["value"] is not None else {"met": NOTHING}) for row in results["goals"]])


def _suite(name: str) -> Callable[[Row], bool]:
    return lambda row: row["suite"] == name


TABLES: dict[str, Callable[[Row], str]] = {
    "run": _run,
    "pays": _pays,
    "goals": _goals,
    "selection": _of("select", SELECTION),
    "image side": _of("image_side", IMAGE_SIDE),
    "saturation": _of("saturation", SATURATION),
    "vision": _of("stages", VISION, _suite("clip")),
    "prefill": _of("stages", PREFILL, _suite("prefill")),
    "stages": _of("stages", STAGES, _suite("e2e")),
    "answers": _of("answers", ANSWERS, lambda row: "answer_ms" in row),
    "largest batch": _of("answers", LARGEST, lambda row: "largest_batch" in row),
    "embedded": _of("embedded", EMBEDDED),
}


def fill(document: str, results: Row) -> str:
    """The document with every block made from ``results``.

    Args:
        results: what gpu.json holds, or a file of an earlier run that has nothing but bars for the picture, as "pays":
            then the tables say that nothing was measured.

    Raises:
        InputError: a block that is none of ``TABLES``.
    """

    def block(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in TABLES:
            raise InputError(f"<!-- gpu: {name} -->: no such table; there are {', '.join(TABLES)}")
        measured = "parts" in results or name == "pays"
        content = TABLES[name](results) if measured else EMPTY
        return f"{name}{match['open']}{content}"

    return BLOCK.sub(block, document)


def write(document: Path, results: Row) -> None:
    """Make the blocks of a document and the picture beside it."""
    replace_file(document, fill(read_utf8(document).decode(), results))
    if bars := figure.cases(results):
        replace_file(document.parent / PICTURE, figure.svg(bars))
