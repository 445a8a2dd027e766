"""The tables that the benchmark prints: a selection of what its JSON holds."""

from collections.abc import Mapping, Sequence
from typing import Any

# Per suite, what stands over each column and which value stands in it, formatted how.
COLUMNS = {
    "select": (
        {"pruner": "{method}", "features": "{variant}", "B": "{B}", "N": "{N}", "D": "{D}", "T": "{T}"}
        | {"CPU ms": "{cpu_ms:.2f}", "floor": "{floor_ms:.2f}", "wall ms": "{wall_ms:.2f}", "min": "{min_ms:.2f}"}
        | {
            "n": "{n}",
            "graph": "{graph_wall_ms:.2f}",
            "ratio": "{ratio_to_reference:.3f}",
            "official": "{ratio_to_official:.3f}",
        }
        | {"same set": "{equal}", "Gram GFLOP": "{gram_gflop:.2f}", "of full": "{full_gram_gflop:.2f}", "ops": "{ops}"}
        | {"per token": "{ops_per_token:.1f}", "peak MB": "{peak_mb:.1f}", "of ref.": "{ratio_of_peaks:.2f}"}
        | {"noisy": "{noisy}"}
    ),
    "clip": (
        {"what": "{variant}", "images": "{B}", "dtype": "{dtype}", "CPU ms": "{cpu_ms:.0f}"}
        | {"floor": "{floor_ms:.0f}", "wall ms": "{wall_ms:.0f}", "min": "{min_ms:.0f}", "n": "{n}"}
        | {"ratio to eager with all maps": "{ratio_to_reference:.2f}", "equal": "{equal}", "peak MB": "{peak_mb:.0f}"}
        | {"of ref.": "{ratio_of_peaks:.2f}", "noisy": "{noisy}"}
    ),
    "prefill": (
        {"B": "{B}", "visual": "{visual}", "tokens": "{n}", "ms": "{ms:.0f}", "floor": "{floor_ms:.0f}"}
        | {"wall ms": "{wall_ms:.0f}", "min": "{min_ms:.0f}", "n": "{reps}", "speed-up": "{speedup:.2f}"}
        | {"FLOP ratio": "{flop_ratio:.2f}", "DivPrune T": "{tera_divprune:.3f}", "CDPruner T": "{tera_cdpruner:.3f}"}
        | {"VisPruner T": "{tera_vispruner:.3f}", "true T": "{tera_true:.3f}", "KV MB": "{kv_mb:.0f}"}
        | {"peak MB": "{peak_mb:.0f}", "noisy": "{noisy}"}
    ),
    "e2e": (
        {"pruner": "{method}", "T": "{T}", "vision ms": "{vision_ms:.0f}", "text": "{text_ms:.0f}"}
        | {"projector": "{projector_ms:.1f}", "selection": "{select_ms:.2f}", "prefill": "{prefill_ms:.0f}"}
        | {"total": "{total_ms:.0f}", "speed-up": "{speedup:.2f}", "selection / prefill": "{selection_share:.2%}"}
        | {"pays below": "{break_even_tokens:.0f}", "noisy": "{noisy}"}
    ),
    "serve": (
        {"model": "{model}", "pruner": "{method}", "visual": "{visual}", "batch": "{B}"}
        | {"images/s": "{images_per_second:.1f}", "p50 ms": "{p50_ms:.1f}", "p99 ms": "{p99_ms:.1f}", "n": "{n}"}
        | {"KV MB/request": "{kv_mb_per_request:.2f}", "memory GB": "{memory_gb:g}", "largest batch": "{largest_batch}"}
        | {"noisy": "{noisy}"}
    ),
}
FOOTNOTES = {
    "select": "ratio: time over that of the plain form in llava.bench.reference, CPU time with one thread. floor: the "
    "similarities that the method needs, at the speed of a large matrix product on this machine.",
    "prefill": "Times are of {layers_run} of {layers} layers, FLOPs and KV cache of all. T: 1e12, counted as the paper "
    "named does; only the last counts every FLOP, text included.",
    "e2e": "Prefill is scaled from {layers_run} to {layers} layers. Pruning pays when fewer tokens than in the last "
    "column but one are kept.",
    "serve": "largest batch: what fits into the memory beside the weights, estimated from two batch sizes.",
}


def table(suite: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of one suite, aligned, with what one has to know to read them; an absent value leaves its cell empty."""
    lines = cells(COLUMNS[suite], rows)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [f"== {suite} =="]
    text += ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    if suite in FOOTNOTES:
        text.append(FOOTNOTES[suite].format(**rows[0]))
    return "\n".join(text)


def cells(columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """What stands over the columns, then what stands in each row; a column without a value in any row is left out."""
    columns = {head: form for head, form in columns.items() if any(_cell(form, row) for row in rows)}
    return [list(columns), *([_cell(form, row) for form in columns.values()] for row in rows)]


def _cell(form: str, row: Mapping[str, Any]) -> str:
    try:
        return form.format_map({name: _word(value) for name, value in row.items() if value is not None})
    except KeyError:
        return ""


def _word(value: Any) -> Any:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value
