"""The command line of the benchmark: read, and its help printed, before torch is imported."""

from argparse import ArgumentParser
from pathlib import Path

from llava.bench.flops import SHAPES
from llava.command import SEED, Number, Parser, at_least

SUITES = ("select", "clip", "prefill", "e2e", "serve")
CPU_LAYERS = 4
CPU_MEMORY_GB = 16.0
SELECT_REPS, MODEL_REPS = 5, 3
MOST_THREADS = 1024
DOC = """Measure what pruning costs and saves, on random weights built in place: nothing is downloaded. Suites: select
(each pruner against its plain form), clip (the vision side), prefill (the language model), e2e (all stages, with and
without pruning), serve (the embedded model under load). On a CPU all take about three minutes."""


def bench_parser() -> ArgumentParser:
    """The command line."""
    parser = Parser(prog="python -m llava.bench", description=DOC)
    integer = at_least(1)
    suites = [*SUITES, "all"]
    measured = "what is measured; all if not given"
    parser.add_argument("--suite", nargs="+", choices=suites, default=["all"], help=measured)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where")
    parser.add_argument("--model", choices=list(SHAPES), default="7b", help="whose shapes")
    layers = f"decoder layers built; all on cuda, {CPU_LAYERS} on cpu, if not given"
    parser.add_argument("--layers", type=integer, help=layers)
    parser.add_argument("--threads", type=Number(int, 1, MOST_THREADS), default=1, help="of torch on the CPU")
    reps = f"times each thing is measured; {SELECT_REPS} in select, else {MODEL_REPS}, if not given"
    parser.add_argument("--reps", type=integer, help=reps)
    parser.add_argument("--seed", type=SEED, default=0, help="of inputs and weights")
    memory = f"serve: for the largest batch; {CPU_MEMORY_GB:g} on cpu, all on cuda, if not given"
    parser.add_argument("--memory-gb", type=Number(float, 0, above=True), help=memory)
    official = "select: folder of the methods' own repositories, timed too"
    parser.add_argument("--official-root", type=Path, metavar="FOLDER", help=official)
    parser.add_argument("--json", type=Path, metavar="FILE", help="file for all rows and the settings")
    return parser
