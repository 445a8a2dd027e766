"""Part ``golden``: whether the pruners choose on this device what is recorded, made on a CPU in float32."""

from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from llava.bench.gpu.setting import TESTS, Rows, Setting, Wrong

GOLDEN = TESTS / "golden"


def reader() -> ModuleType:
    """The reader of recorded selections, which the tests use as well; it is in the repository, not in the package."""
    spec = spec_from_file_location("check_golden", TESTS / "check_golden.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def expected(case: dict[str, Any]) -> Tensor:
    """The kept tokens that a case records, (B, T)."""
    return case.get("indices_exact", case["indices"])


@torch.no_grad()
def run(setting: Setting) -> Rows:
    """A row per recorded selection of a pruner."""
    held, different, found = reader(), [], 0
    for path in held.files(GOLDEN):
        method, case = held.load(path)
        if method not in held.MAKE:  # no pruner's: how tiles are read, words, borders
            continue
        pruner, cues = held.prepared(method, _on(setting.where, case))
        equal = torch.equal(pruner(cues).cpu(), expected(case))
        different += [] if equal else [path.stem]
        found += 1
        yield {"method": method, "file": path.stem, "equal": equal}
    if not found:
        raise Wrong(f"{GOLDEN}: no selections to compare with")
    if different:
        raise Wrong(f"{len(different)} of {found} selections differ: {', '.join(different)}")


def _on(device: torch.device, case: dict[str, Any]) -> dict[str, Any]:
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in case.items()}
