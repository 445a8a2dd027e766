"""The way back from a kernel that does not run, with stand-ins for the kernels and the GPU."""

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from threading import Barrier
from types import SimpleNamespace

import pytest
import torch

from llava.pruners import PRUNERS
from llava.pruners.search import device
from llava.pruners.search.device import compiled, refused

GPU = torch.device("cuda", 0)
KERNELS = "llava.pruners.search.kernels"


class Kernel:
    """A search that notes its calls and raises what it was told to, at its first call or from its nth on."""

    def __init__(self, error=None, sound=0):
        self.error, self.sound, self.calls = error, sound, []

    def __call__(self, matrix, *rest):
        self.calls.append((matrix.shape[1], *rest))
        if self.error is not None and len(self.calls) > self.sound:
            raise self.error
        return f"picks of {matrix.shape[1]}"


def matrix(tokens=576, on=GPU):
    return SimpleNamespace(is_cuda=on.type == "cuda", device=on, shape=(1, tokens, tokens))


@pytest.fixture
def gpu(monkeypatch):
    """A GPU with kernels that run; ``fails`` is what it raises when it is waited for."""
    gpu = SimpleNamespace(fails=None, recording=False, capability=(9, 0))

    def wait_for(_):
        if gpu.fails is not None:
            raise gpu.fails

    gpu.kernels = SimpleNamespace(
        LARGEST_TILE=4096,
        triton=SimpleNamespace(__version__="3.6.0"),
        built_for=lambda search, matrix, *rest: (matrix.shape[1],),
        greedy_map=Kernel(),
        remove_duplicates=Kernel(),
    )
    monkeypatch.setattr(device, "_loaded", {})
    monkeypatch.setattr(device, "_runs", {})
    monkeypatch.setattr(device, "_current", lambda _: nullcontext())
    monkeypatch.setattr(device, "_is_recording", lambda _: gpu.recording)
    monkeypatch.setattr(device, "_wait_for", wait_for)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: gpu.capability)
    monkeypatch.setitem(sys.modules, KERNELS, gpu.kernels)
    return gpu


def test_a_kernel_that_runs_is_what_searches(gpu, caplog):
    assert [compiled("greedy_map", matrix(), 64) for _ in range(3)] == ["picks of 576"] * 3
    assert gpu.kernels.greedy_map.calls == [(576, 64)] * 3 and not caplog.records


COMPILE_OR_LAUNCH = [
    RuntimeError("PassManager::run failed"),
    TypeError("at 12:8: unsupported"),
    OSError("no C compiler"),
    RuntimeError("Triton Error [CUDA]: out of resource: shared memory\nRequired: 99"),
]


@pytest.mark.parametrize("error", COMPILE_OR_LAUNCH, ids=repr)
def test_one_that_does_not_is_told_once_and_not_tried_again(gpu, caplog, error):
    gpu.kernels.remove_duplicates = Kernel(error)
    assert [compiled("remove_duplicates", matrix(), 64, 8) for _ in range(3)] == [None] * 3
    assert len(gpu.kernels.remove_duplicates.calls) == 1
    (record,) = caplog.records
    for part in ("remove_duplicates", "576 tokens", "cuda:0", type(error).__name__, " ".join(str(error).split())):
        assert part in record.getMessage()


def test_no_other_kernel_and_no_other_size_and_no_other_device_goes_without(gpu, caplog):
    broken = gpu.kernels.remove_duplicates = Kernel(RuntimeError("PassManager::run failed"))
    assert compiled("remove_duplicates", matrix(), 64, 8) is None
    assert compiled("greedy_map", matrix(), 64) == "picks of 576"
    broken.error = None
    assert compiled("remove_duplicates", matrix(2880), 64, 8) == "picks of 2880"
    assert compiled("remove_duplicates", matrix(on=torch.device("cuda", 1)), 64, 8) == "picks of 576"
    assert compiled("remove_duplicates", matrix(), 64, 8) is None
    assert len(caplog.records) == 1


def test_a_failure_of_the_device_at_the_first_launch_is_raised(gpu, caplog):
    gpu.kernels.greedy_map = Kernel(RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"))
    gpu.fails = RuntimeError("CUDA error: an illegal memory access was encountered")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="^CUDA error: an illegal memory access"):
            compiled("greedy_map", matrix(), 64)
    assert not caplog.records


def test_an_error_behind_the_first_launch_is_raised(gpu, caplog):
    gpu.kernels.greedy_map = Kernel(RuntimeError("unspecified launch failure"), sound=1)
    assert compiled("greedy_map", matrix(), 64) == "picks of 576"
    with pytest.raises(RuntimeError, match="unspecified launch failure"):
        compiled("greedy_map", matrix(), 64)
    assert not caplog.records


def test_a_lack_of_memory_is_no_fault_of_the_kernel(gpu, caplog):
    gpu.kernels.greedy_map = Kernel(torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(torch.OutOfMemoryError):
        compiled("greedy_map", matrix(), 64)
    gpu.kernels.greedy_map.error = None
    assert compiled("greedy_map", matrix(), 64) == "picks of 576" and not caplog.records


def test_what_fails_while_a_graph_is_recorded_is_raised_and_tried_again(gpu):
    gpu.kernels.greedy_map, gpu.recording = Kernel(RuntimeError("not permitted when stream is capturing")), True
    with pytest.raises(RuntimeError, match="capturing"):
        compiled("greedy_map", matrix(), 64)
    gpu.kernels.greedy_map.error = None
    assert compiled("greedy_map", matrix(), 64) == "picks of 576"


def test_threads_try_a_kernel_once_and_are_told_once(gpu, caplog):
    gpu.kernels.remove_duplicates = Kernel(RuntimeError("PassManager::run failed"))
    together = Barrier(8)

    def search(name):
        together.wait()
        return compiled(name, matrix(), 64)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(search, ["remove_duplicates", "greedy_map"] * 4))
    assert found == [None, "picks of 576"] * 4
    assert len(gpu.kernels.remove_duplicates.calls) == 1 and len(gpu.kernels.greedy_map.calls) == 4
    assert len(caplog.records) == 1


def test_nothing_is_tried_on_a_cpu_or_for_more_tokens_than_a_kernel_takes(gpu, caplog):
    assert compiled("greedy_map", matrix(on=torch.device("cpu")), 64) is None
    assert compiled("greedy_map", matrix(4097), 64) is None
    assert not gpu.kernels.greedy_map.calls and not caplog.records


def test_a_triton_that_is_not_there_is_not_told(gpu, caplog, monkeypatch):
    monkeypatch.delitem(sys.modules, KERNELS)
    monkeypatch.setitem(sys.modules, "triton", None)
    assert compiled("greedy_map", matrix(), 64) is None and not caplog.records


def test_a_triton_that_cannot_be_imported_is_told_once(gpu, caplog, monkeypatch):
    def broken(name):
        raise ImportError("libtriton.so: undefined symbol")

    monkeypatch.setattr(device, "import_module", broken)
    assert [compiled("greedy_map", matrix(tokens), 64) for tokens in (576, 2880)] == [None, None]
    (record,) = caplog.records
    assert "libtriton.so: undefined symbol" in record.getMessage()


def test_a_triton_that_would_end_the_process_is_refused_before_it_is_tried(gpu, caplog):
    gpu.kernels.triton.__version__, gpu.capability = "3.2.0", (12, 0)
    assert [compiled("greedy_map", matrix(tokens), 64) for tokens in (576, 2880)] == [None, None]
    (record,) = caplog.records
    assert not gpu.kernels.greedy_map.calls
    assert "Triton 3.2.0" in record.getMessage() and "sm_120" in record.getMessage()


@pytest.mark.parametrize(
    ("triton", "capability", "runs"),
    [
        ("3.1.0", (8, 0), False),
        ("unknown", (8, 0), False),
        ("3.2.0+git35c6c7c6", (9, 0), True),
        ("3.2.0", (10, 0), False),
        ("3.3.1", (12, 0), False),
        ("3.4.0", (10, 0), True),
        ("3.4.0", (12, 0), True),
        ("3.4.0", (12, 1), False),
        ("3.6.0", (10, 3), True),
        ("3.6.0", (11, 0), False),
        ("3.9.0", (11, 0), True),
        ("3.10.0", (12, 1), True),
        ("3.10.0", (13, 0), False),
    ],
)
def test_a_triton_is_tried_on_the_gpus_that_its_compiler_knows(gpu, triton, capability, runs):
    gpu.capability = capability
    assert (refused(triton, GPU) is None) == runs


def test_a_rocm_device_is_not_taken_for_one_of_nvidia(gpu, monkeypatch):
    gpu.capability = (11, 5)  # gfx1150
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert refused("3.6.0", GPU) is None and refused("3.1.0", GPU)


class OnGpu(torch.Tensor):
    """A tensor on the CPU that says it is on a GPU."""

    is_cuda = True


@pytest.mark.parametrize("name", ["cdpruner", "divprune", "vispruner"])
def test_a_pruner_chooses_the_same_where_its_kernel_does_not_run(name, gpu, random_cues):
    cues = random_cues(tiles=2, tokens=50, width=64)
    expected = PRUNERS[name](30)(cues)
    failing = dict.fromkeys(("greedy_map", "farthest_points", "remove_duplicates"), Kernel(*COMPILE_OR_LAUNCH[:1]))
    vars(gpu.kernels).update(failing)
    on_gpu = random_cues(tiles=2, tokens=50, width=64)
    for cue in ("embeds", "features"):
        object.__setattr__(on_gpu, cue, getattr(on_gpu, cue).as_subclass(OnGpu))
    assert torch.equal(torch.Tensor(PRUNERS[name](30)(on_gpu)), expected)
    assert len(failing["greedy_map"].calls) == 1
