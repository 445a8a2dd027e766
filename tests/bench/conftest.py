"""A LLaVA of random weights, so small that a suite takes a moment."""

import pytest
import torch

from llava.bench import floors
from llava.bench.flops import Shape
from llava.bench.models import SMALL_TEXT, SMALL_VISION, random_llava


@pytest.fixture(scope="session")
def shape() -> Shape:
    """Three layers, of which the model has two."""
    return Shape(layers=3, width=48, ffn=80, heads=4)


@pytest.fixture(scope="session")
def model(shape):
    return random_llava(shape, 2, torch.device("cpu"), torch.float32, vision=SMALL_VISION, text=SMALL_TEXT)


@pytest.fixture(scope="session")
def cpu() -> torch.device:
    return torch.device("cpu")


@pytest.fixture(scope="session", autouse=True)
def small_rates():
    """Rates of the machine from products and sums that take no time; no test looks at them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(floors.PRODUCT_SIDE, "cpu", 16)
        patch.setitem(floors.READ_BYTES, "cpu", 4096)
        yield
