"""Print the efficiency tables of DivPrune, CDPruner and VisPruner from their formulas, beside what was published.

DivPrune counts multiply-accumulates, a feed-forward of two matrices and the text; CDPruner floating-point operations,
three matrices and visual tokens alone; VisPruner, like FasterVLM before it, adds five CLIP tiles to that. Only within
one table can the numbers be compared.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from llava.bench.flops import CLIP_TILES, SHAPES, clip_flops, kv_cache_mb, prefill_flops, prefill_macs_two_matrices
from llava.command import run_program

# DivPrune publishes averages over questions. This mean length of everything but the image is fitted to its first
# number, and the mean number of tokens of a LLaVA-NeXT image to its fifth; the other rows check both.
DIVPRUNE_TEXT = 45.2
DIVPRUNE_NEXT_IMAGE = 2075
DIVPRUNE_SHARE = 0.098


@dataclass(frozen=True)
class Entry:
    """A published value: of a model with that many visual tokens, in 1e12 operations or MiB of cache."""

    label: str
    model: str
    visual: int
    published: float


def _kept(tokens: int) -> int:
    return round(DIVPRUNE_SHARE * tokens)


DIVPRUNE = (
    Entry("LLaVA-1.5-7B, full", "7b", 576, 3.228),
    Entry("LLaVA-1.5-7B, 9.8 %", "7b", _kept(576), 0.512),
    Entry("LLaVA-1.5-13B, full", "13b", 576, 6.281),
    Entry("LLaVA-1.5-13B, 9.8 %", "13b", _kept(576), 1.002),
    Entry("LLaVA-1.6-7B, full", "7b", DIVPRUNE_NEXT_IMAGE, 11.85),
    Entry("LLaVA-1.6-7B, 9.8 %", "7b", _kept(DIVPRUNE_NEXT_IMAGE), 1.266),
)
CDPRUNER = (
    Entry("LLaVA-NeXT-7B, full", "7b", 2880, 41.7),
    Entry("LLaVA-NeXT-7B, 320", "7b", 320, 4.2),
    Entry("LLaVA-NeXT-13B, full", "13b", 2880, 79.9),
    Entry("LLaVA-NeXT-13B, 320", "13b", 320, 8.2),
)
CDPRUNER_CACHE = tuple(
    Entry(entry.label, entry.model, entry.visual, published)
    for entry, published in zip(CDPRUNER, (1440.0, 160.0, 2250.0, 250.0), strict=True)
)
# FasterVLM prints its values without their token counts but for the last three; 2160 and 1440 are three and two
# quarters of all.
VISPRUNER = (
    Entry("VisPruner, full", "7b", 2880, 43.6),
    Entry('VisPruner, "640" as printed', "7b", 640, 11.5),
    Entry('VisPruner, "640" is 720', "7b", 720, 11.5),
    Entry('VisPruner, "160" as printed', "7b", 160, 3.8),
    Entry('VisPruner, "160" is 145', "7b", 145, 3.8),
    Entry("FasterVLM, full", "7b", 2880, 43.56),
    Entry("FasterVLM, 2160", "7b", 2160, 32.33),
    Entry("FasterVLM, 1440", "7b", 1440, 21.64),
    Entry("FasterVLM, 720", "7b", 720, 11.50),
    Entry("FasterVLM, 290", "7b", 290, 5.71),
    Entry("FasterVLM, 145", "7b", 145, 3.80),
)
VISPRUNER_CACHE = (
    Entry("VisPruner, full", "7b", 2880, 1440.0),
    Entry('VisPruner, "640" as printed', "7b", 640, 360.0),
    Entry('VisPruner, "640" is 720', "7b", 720, 360.0),
    Entry("VisPruner, 160", "7b", 160, 80.0),
    Entry("FasterVLM, 290", "7b", 290, 145.0),
    Entry("FasterVLM, 145", "7b", 145, 72.5),
)


def divprune_tera(entry: Entry) -> float:
    return prefill_macs_two_matrices(SHAPES[entry.model], entry.visual + DIVPRUNE_TEXT) / 1e12


def cdpruner_tera(entry: Entry) -> float:
    return prefill_flops(SHAPES[entry.model], entry.visual) / 1e12


def vispruner_tera(entry: Entry) -> float:
    return cdpruner_tera(entry) + clip_flops(CLIP_TILES) / 1e12


def visual_cache_mb(entry: Entry) -> float:
    return kv_cache_mb(SHAPES[entry.model], entry.visual)


TABLES: dict[str, tuple[tuple[Entry, ...], Callable[[Entry], float]]] = {
    f"DivPrune, TMAC with {DIVPRUNE_TEXT} text tokens (fitted)": (DIVPRUNE, divprune_tera),
    "CDPruner, TFLOP": (CDPRUNER, cdpruner_tera),
    "CDPruner, KV cache of the visual tokens, MB": (CDPRUNER_CACHE, visual_cache_mb),
    "VisPruner and FasterVLM, TFLOP with five CLIP tiles": (VISPRUNER, vispruner_tera),
    "VisPruner and FasterVLM, KV cache of the visual tokens, MB": (VISPRUNER_CACHE, visual_cache_mb),
}


def table(title: str) -> str:
    """One of ``TABLES``: formula, published value and their difference."""
    entries, formula = TABLES[title]
    lines = [title, f"{'':<30}{'visual':>8}{'formula':>12}{'published':>12}{'difference':>12}"]
    for entry in entries:
        value = formula(entry)
        difference = value - entry.published
        lines.append(f"{entry.label:<30}{entry.visual:>8}{value:>12.3f}{entry.published:>12.3f}{difference:>+12.3f}")
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    return argparse.ArgumentParser(description=__doc__)


def main(_: argparse.Namespace) -> None:
    """Print every table."""
    print("\n\n".join(table(title) for title in TABLES))


if __name__ == "__main__":
    run_program(build_parser(), main)
