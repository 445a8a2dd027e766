"""Let torchvision be imported beside a torch that its compiled part was not built for: a CUDA one beside a CPU torch.

Its import asks for two operators of that part, which no test calls: they are declared in its place. What the tests need
of torchvision, resizing and normalising above all, is written in Python.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

import torch

BESIDE = Path(sys.prefix) / "torchvision"  # where `make test` puts one that cannot be among the packages


def _declare_operators() -> torch.library.Library | None:
    """The declarations, which hold as long as they are referred to; None where there is no need of them."""
    if find_spec("torchvision") is None and BESIDE.is_dir():
        sys.path.append(str(BESIDE))
    package = find_spec("torchvision")
    if package is None or hasattr(torch.ops.torchvision, "nms"):  # the environment of an extra may declare them
        return None
    try:
        for compiled in Path(package.origin).parent.glob("_C.*"):
            torch.ops.load_library(compiled)
        return None
    except OSError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return library


OPERATORS = _declare_operators()
