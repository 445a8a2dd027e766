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

from llava.pruners.search import kernels  # noqa: E402
from llava.pruners.search.duplicates import REMOVED_PER_ROUND  # noqa: E402

pytestmark = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter compiles nothing")

VERSION = tuple(int(part) for part in triton.__version__.split(".")[:2])
TARGETS = {f"sm_{number}": GPUTarget("cuda", number, 32) for number in (75, 80, 86, 89, 90, 100, 120)}
TARGETS |= {"gfx942": GPUTarget("hip", "gfx942", 64), "gfx1100": GPUTarget("hip", "gfx1100", 32)}
FIRST = {"sm_100": (3, 4), "sm_120": (3, 4), "gfx942": (3, 6), "gfx1100": (3, 6)}  # the Triton that compiles for them
TILES = (144, 576, 729, 2880)  # tokens
BUDGETS = range(8, 289)
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
    """A function from a target, a search, tokens and budget to the program that a launch would run."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))

    def compile_for(target, search, tokens, budget):
        program, compiled = getattr(kernels, f"_{search}"), []
        run = program.run
        with monkeypatch.context() as patch:
            patch.setattr(jit, "driver", SimpleNamespace(active=StandInDriver(target)))
            patch.setattr(program, "run", lambda *a, warmup, **b: compiled.append(run(*a, warmup=True, **b)))
            SEARCHES[search](torch.empty(2, tokens, tokens, device="meta"), budget=budget)
        return compiled.pop()

    return compile_for


SEARCHES = {
    "greedy_map": kernels.greedy_map,
    "farthest_points": partial(kernels.farthest_points, first=torch.empty(2, 1, dtype=torch.int64, device="meta")),
    "remove_duplicates": partial(kernels.remove_duplicates, removed_per_round=REMOVED_PER_ROUND),
}


def launched(search, tokens, budget):
    """Tokens and budget of the search when ``budget`` of ``tokens`` are kept."""
    if search == "greedy_map":
        return -(-tokens // 16) * 16, budget
    if search == "remove_duplicates":
        return tokens - budget // 2, budget - budget // 2
    return tokens, budget


def programs(search):
    """One size for each program that the search is compiled to: (tokens, budget)."""
    sizes = [launched(search, tokens, budget) for tokens in TILES for budget in BUDGETS if budget < tokens]
    return {kernels.built_for(search, size[0]): size for size in sizes}.values()


def usual(search, tokens, target):
    """Whether the case is among the few of the default suite."""
    return target in ("sm_75", "sm_120") and tokens == max(size for size, _ in programs(search))


CASES = [
    pytest.param(search, *size, target, marks=() if usual(search, size[0], target) else pytest.mark.slow)
    for search in SEARCHES
    for size in programs(search)
    for target in TARGETS
]


@pytest.mark.parametrize(("search", "tokens", "budget", "target"), CASES)
def test_compiles(search, tokens, budget, target, compile_for):
    if VERSION < FIRST.get(target, VERSION):
        pytest.skip(f"Triton {triton.__version__} does not know {target}")
    binary = "cubin" if target.startswith("sm") else "hsaco"
    assert compile_for(target, search, tokens, budget).asm[binary]


@pytest.mark.skipif(not CUOBJDUMP.exists(), reason="needs cuobjdump")
@pytest.mark.parametrize("tokens", [576, 2880])
@pytest.mark.parametrize("search", SEARCHES)
def test_spills_no_registers(search, tokens, compile_for, tmp_path):
    (tmp_path / "kernel.cubin").write_bytes(compile_for("sm_90", search, tokens, 64).asm["cubin"])
    command = [CUOBJDUMP, "--dump-resource-usage", tmp_path / "kernel.cubin"]
    used = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    spilled = 16 if VERSION < (3, 7) and (search, tokens) == ("remove_duplicates", 576) else 0  # bytes
    assert int(re.search(r"\bSTACK:(\d+)", used)[1]) <= spilled and re.search(r"\bLOCAL:0\b", used), used


@pytest.mark.parametrize("search", SEARCHES)
def test_one_program_is_built_for_all_sizes_that_are_said_to_share_it(search, compile_for):
    sizes = [(tokens, budget) for tokens in (576, 590, 592) for budget in (1, 2, 64, 75)]
    programs = {(kernels.built_for(search, size[0]), compile_for("sm_90", search, *size).hash) for size in sizes}
    assert len(programs) == len({shape for shape, _ in programs}) == len({program for _, program in programs}) == 2
