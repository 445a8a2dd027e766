"""Every kernel compiled as it is launched, for GPUs that are not at hand: nothing runs, no driver is needed."""

import os
import re
import subprocess
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

triton = pytest.importorskip("triton")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.runtime import jit  # noqa: E402

from llava.pruners.search import duplicates_kernel, greedy_kernel, kernels  # noqa: E402
from llava.pruners.search.duplicates import REMOVED_PER_ROUND  # noqa: E402
from llava.pruners.search.together import FIRST_TOGETHER  # noqa: E402

pytestmark = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter compiles nothing")

VERSION = tuple(int(part) for part in triton.__version__.split(".")[:2])
TARGETS = {f"sm_{number}": GPUTarget("cuda", number, 32) for number in (75, 80, 86, 89, 90, 100, 120)}
TARGETS |= {"gfx942": GPUTarget("hip", "gfx942", 64), "gfx1100": GPUTarget("hip", "gfx1100", 32)}
FIRST = {"sm_100": (3, 4), "sm_120": (3, 4), "gfx942": (3, 6), "gfx1100": (3, 6)}  # the Triton that compiles for them
TILES = (144, 576, 729, 2880)  # tokens
BUDGETS = range(8, 289)
PROCESSORS = (0, 132) if VERSION >= FIRST_TOGETHER else (0,)  # whose programs may wait for each other
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


class StandInDriver:
    """What Triton asks its driver before it compiles, answered for a device that is not there."""

    def __init__(self, name):
        self.name = name

    def get_current_device(self):
        return self.name  # Triton keeps what it compiled under this

    def get_current_stream(self, device=None):
        return 0

    def get_current_target(self):
        return TARGETS[self.name]


@pytest.fixture
def compile_for(monkeypatch, tmp_path):
    """A function from target, search, tokens, budget and processors to the program that a launch would run."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))

    def compile_for(target, search, tokens, budget, processors):
        compiled = []

        def compiles(run):
            return lambda *a, warmup, **b: compiled.append(run(*a, warmup=True, **b))

        with monkeypatch.context() as patch:
            patch.setattr(jit, "driver", SimpleNamespace(active=StandInDriver(target)))
            patch.setattr(kernels, "multiprocessors", lambda device: processors)
            for program in PROGRAMS[search]:
                patch.setattr(program, "run", compiles(program.run))
            SEARCHES[search](matrix(tokens), budget=budget)
        return compiled.pop()

    return compile_for


def matrix(tokens):
    return torch.empty(1, tokens, tokens, device="meta")


PROGRAMS = {
    "greedy_map": (kernels._greedy_map, greedy_kernel._greedy_map_together),
    "farthest_points": (kernels._farthest_points,),
    "weighted_points": (kernels._farthest_points,),
    "remove_duplicates": (kernels._remove_duplicates, duplicates_kernel._remove_duplicates_together),
}
SEARCHES = {
    "greedy_map": kernels.greedy_map,
    "farthest_points": partial(kernels.farthest_points, first=torch.empty(1, 1, dtype=torch.int64, device="meta")),
    "weighted_points": lambda distance, budget: kernels.farthest_points(
        distance, distance.new_empty(1, 1, dtype=torch.int64), budget, distance[:, 0]
    ),
    "remove_duplicates": partial(kernels.remove_duplicates, removed_per_round=REMOVED_PER_ROUND),
}


def launched(search, tokens, budget):
    """Tokens and budget of the search when ``budget`` of ``tokens`` are kept."""
    if search == "greedy_map":
        return -(-tokens // 16) * 16, budget
    if search == "remove_duplicates":
        return tokens - budget // 2, budget - budget // 2
    return tokens, budget


def built_for(search, tokens, budget, processors):
    """What tells apart the programs that the search launches on a device."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "multiprocessors", lambda device: processors)
        if search == "weighted_points":
            return kernels.built_for("farthest_points", matrix(tokens), None, budget, matrix(tokens)[:, 0])
        return kernels.built_for(search, matrix(tokens), budget)


def cases(search):
    """One for each program that the search is compiled to: (tokens, budget, processors)."""
    sizes = [launched(search, tokens, budget) for tokens in TILES for budget in BUDGETS if budget < tokens]
    sizes = [(*size, processors) for processors in PROCESSORS for size in sizes]
    return {built_for(search, *size): size for size in sizes}.values()


def usual(search, case, target):
    """Whether the case is among the few of the default suite."""
    largest = max(size for size, _, processors in cases(search) if processors == case[2])
    return target in ("sm_75", "sm_120") and case[0] == largest


CASES = [
    pytest.param(search, *case, target, marks=() if usual(search, case, target) else pytest.mark.slow)
    for search in SEARCHES
    for case in cases(search)
    for target in TARGETS
    if target.startswith("sm") or not case[2]
]


@pytest.mark.parametrize(("search", "tokens", "budget", "processors", "target"), CASES)
def test_compiles(search, tokens, budget, processors, target, compile_for):
    if VERSION < FIRST.get(target, VERSION):
        pytest.skip(f"Triton {triton.__version__} does not know {target}")
    binary = "cubin" if target.startswith("sm") else "hsaco"
    assert compile_for(target, search, tokens, budget, processors).asm[binary]


@pytest.mark.skipif(not CUOBJDUMP.exists(), reason="needs cuobjdump")
@pytest.mark.parametrize("processors", PROCESSORS)
@pytest.mark.parametrize(("tokens", "budget"), [(576, 64), (576, 192), (2880, 288)])
@pytest.mark.parametrize("search", SEARCHES)
def test_spills_no_registers(search, tokens, budget, processors, compile_for, tmp_path):
    (tmp_path / "kernel.cubin").write_bytes(compile_for("sm_90", search, tokens, budget, processors).asm["cubin"])
    command = [CUOBJDUMP, "--dump-resource-usage", tmp_path / "kernel.cubin"]
    used = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    spills = VERSION < (3, 7) and (search, tokens, processors) == ("remove_duplicates", 576, 0)
    assert int(re.search(r"\bSTACK:(\d+)", used)[1]) <= 16 * spills and re.search(r"\bLOCAL:0\b", used), used


@pytest.mark.parametrize("processors", PROCESSORS)
@pytest.mark.parametrize("search", SEARCHES)
def test_one_program_is_built_for_all_sizes_that_are_said_to_share_it(search, processors, compile_for):
    sizes = [(tokens, budget) for tokens in (576, 590, 592) for budget in (72, 96, 129, 200)]
    sizes = [(*size, processors) for size in sizes]
    built = {(built_for(search, *size), compile_for("sm_90", search, *size).hash) for size in sizes}
    programs = 4 if (search, processors) == ("greedy_map", 132) else 2  # that one holds 128 or 256 rows of its factor
    assert len(built) == len({shape for shape, _ in built}) == len({program for _, program in built}) == programs
