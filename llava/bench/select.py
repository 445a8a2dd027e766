"""Suite ``select``: each pruner against the plain form in ``reference``, on the same synthetic cues."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from llava.bench import reference
from llava.bench.floors import Rates, measure_rates
from llava.bench.flops import selection_flops
from llava.bench.harness import Counter, extra_peak_mb, measure
from llava.bench.official import IMPORTANT_RATIO, official_selection
from llava.pruners import VisualCues, resolve_pruner

logger = logging.getLogger(__name__)

SIDE = 24
TILE = SIDE * SIDE
FEATURES = ("smooth", "gaussian")
WORDS, POSITIONS, JOINT_WIDTH = 8, 77, 768  # of a question; CLIP's text length and joint space
COVERING = ("scope", "mmtok", "eadp")


@dataclass(frozen=True)
class Case:
    """One row: a method on B tiles of N tokens of D numbers, of which T are kept."""

    method: str
    batch: int
    tokens: int
    width: int
    kept: int
    features: str = "smooth"


def cases(width: int) -> list[Case]:
    """What is measured: LLaVA-1.5's tile and LLaVA-NeXT's five, projected to the language model's width.

    VisPruner reads the encoder's features, of width 1024, tile by tile; the others also read 2880 tokens as one set,
    those that cover with the same width.
    """
    rows = []
    for features in FEATURES:
        for method in ("cdpruner", "divprune", "mfpruner"):
            rows += [Case(method, 1, TILE, width, kept, features) for kept in (64, 192)]
        rows += [Case("vispruner", 1, TILE, 1024, kept, features) for kept in (64, 192)]
        rows += [Case(method, 1, TILE, 1024, 64, features) for method in COVERING]
    rows += [Case(method, 1, 5 * TILE, 1024, 320) for method in COVERING]
    rows += [Case(method, 1, 5 * TILE, width, 288) for method in ("cdpruner", "divprune", "mfpruner")]
    return [*rows, Case("cdpruner", 5, TILE, width, 64), Case("vispruner", 5, TILE, 1024, 64)]


def make_cues(case: Case, seed: int, device: torch.device) -> VisualCues:
    """Draw all cues that a method here reads; features and embeds are the same tensor.

    "smooth" tokens resemble their neighbours and have a common part, as an encoder's do; "gaussian" ones are
    independent of each other.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    tokens = draw(case.batch, case.tokens, case.width)
    relevance = draw(case.batch, case.tokens)
    if case.features == "smooth":
        tokens = 0.5 * tokens + _smooth_maps(draw, case) + 0.7 * draw(case.width)
    cues = {
        "features": tokens,
        "embeds": tokens,
        "cls_attention": (2 * draw(case.batch, case.tokens)).softmax(dim=1),
        "relevance": 0.02 * relevance - 0.15,
        "joint_embeds": draw(case.batch, case.tokens, JOINT_WIDTH),
        "text_tokens": draw(1, WORDS, case.width).repeat(case.batch, 1, 1),
        "text_sequence": draw(1, 1, POSITIONS, JOINT_WIDTH).repeat(case.batch, 1, 1, 1),
    }
    return VisualCues(**{name: cue.to(device) for name, cue in cues.items()})


def _smooth_maps(draw: Callable[..., Tensor], case: Case) -> Tensor:
    """Random vectors on a coarse grid, interpolated to square maps of tokens, one after the other: (B, N, D)."""
    side = SIDE if case.tokens % TILE == 0 else int(case.tokens**0.5)
    maps = -(-case.tokens // side**2)
    coarse = draw(case.batch * maps, case.width, 5, 5)
    fine = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear", align_corners=True)
    return fine.flatten(2).mT.reshape(case.batch, maps * side**2, case.width)[:, : case.tokens]


def plain_selection(case: Case, cues: VisualCues) -> Callable[[], Tensor]:
    """The call of ``reference`` that a case is compared with."""
    of_question = (cues.embeds, cues.relevance, cues.joint_embeds, cues.text_sequence[0])
    return {
        "cdpruner": partial(reference.cdpruner, cues.embeds, cues.relevance, case.kept),
        "divprune": partial(reference.divprune, cues.embeds, case.kept),
        "vispruner": partial(reference.vispruner, cues.features, cues.cls_attention, case.kept, IMPORTANT_RATIO),
        "mfpruner": partial(reference.mfpruner, cues.embeds, cues.cls_attention, cues.relevance, case.kept),
        "scope": partial(reference.scope, cues.features, cues.cls_attention, case.kept),
        "mmtok": partial(reference.mmtok, cues.features, cues.embeds, cues.text_tokens[0], case.kept),
        "eadp": partial(reference.eadp, *of_question, case.kept),
    }[case.method]


def floor_ms(case: Case, rates: Rates) -> float:
    """The least time for the similarities that the method needs, and for reading the tokens once."""
    important = int(case.kept * IMPORTANT_RATIO)
    flops = selection_flops(case.method, case.batch, case.tokens, case.width, case.kept, important)
    return rates.floor_ms(flops, 4 * case.batch * case.tokens * case.width)


def captured(call: Callable[[], Tensor]) -> Callable[[], Tensor] | None:
    """A replay of the call's operations without their launches; None, with a warning, where that cannot be."""
    beside, graph, expected = torch.cuda.Stream(), torch.cuda.CUDAGraph(), call()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        call()
    torch.cuda.current_stream().wait_stream(beside)
    try:
        with torch.cuda.graph(graph):
            result = call()
    except RuntimeError as error:
        logger.warning("a selection cannot be captured: %s", error)
        return None

    def replay() -> Tensor:
        graph.replay()
        return result

    if torch.equal(replay(), expected):
        return replay
    logger.warning("a captured selection chooses otherwise when it is replayed, not timed")
    return None


def measure_case(
    case: Case, device: torch.device, reps: int, seed: int, official_root: Path | None = None
) -> dict[str, Any]:
    """Time a pruner and its plain form in turn; count what each does."""
    cues = make_cues(case, seed, device)
    pruner = resolve_pruner(case.method, visual_token_num=case.kept)
    variants = {"ours": partial(pruner, cues), "reference": plain_selection(case, cues)}
    if official_root and (official := official_selection(official_root, case.method, cues, case.kept)):
        variants["official"] = official
    with torch.no_grad():
        same = torch.equal(variants["ours"](), variants["reference"]())
        if device.type == "cuda" and (graph := captured(variants["ours"])):
            variants["graph"] = graph
        timings = measure(variants, device, reps)
        with Counter(width=case.width) as counter:
            variants["ours"]()
        peaks = {name: extra_peak_mb(variants[name], device) for name in ("ours", "reference")}
    ours = timings["ours"]
    row = {"suite": "select", "method": case.method, "variant": case.features, "dtype": "float32", **asdict(ours)}
    row |= {"N": case.tokens, "B": case.batch, "D": case.width, "T": case.kept}
    for name, other in timings.items():
        if name != "ours":
            row |= {f"{name}_cpu_ms": other.cpu_ms, f"{name}_wall_ms": other.wall_ms}
            row[f"ratio_to_{name}"] = ours.steady_ms / other.steady_ms
    row["noisy"] = any(timing.noisy for timing in timings.values())
    return row | {
        "equal": same,
        "gram_gflop": counter.gram_flops / 1e9,
        "full_gram_gflop": 2 * case.batch * case.tokens**2 * case.width / 1e9,
        "ops": counter.ops,
        "ops_per_token": counter.ops / case.kept,
        "peak_mb": peaks["ours"],
        "ratio_of_peaks": peaks["ours"] / peaks["reference"],
    }


def run(
    width: int,
    device: torch.device,
    reps: int,
    seed: int,
    official_root: Path | None = None,
    rows: Sequence[Case] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield one row per case, those of ``cases`` if none are given."""
    rates = measure_rates(device, torch.float32)
    for case in tqdm(rows or cases(width), desc="select", unit="case", leave=None):
        yield measure_case(case, device, reps, seed, official_root) | {"floor_ms": floor_ms(case, rates)}
