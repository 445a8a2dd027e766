from types import SimpleNamespace

import torch

from llava.bench import floors
from llava.bench.floors import Rates, measure_rates


def test_the_floor_is_the_slower_of_computing_and_reading():
    rates = Rates(flops=1e9, bytes=1e6)
    assert rates.floor_ms(flops=5e6) == 5
    assert rates.floor_ms(flops=5e6, read_bytes=2e3) == 5
    assert rates.floor_ms(flops=5e6, read_bytes=8e3) == 8


def test_rates_are_those_of_the_product_and_of_the_sum(monkeypatch, cpu):
    monkeypatch.setitem(floors.PRODUCT_SIDE, "cpu", 16)
    monkeypatch.setitem(floors.READ_BYTES, "cpu", 4000)
    shapes = []

    def pretend(variants, device, reps):
        shapes.extend(call() for call in variants.values())
        return {"product": SimpleNamespace(steady_ms=2.0), "read": SimpleNamespace(steady_ms=4.0)}

    monkeypatch.setattr(floors, "measure", pretend)
    assert measure_rates(cpu, torch.bfloat16) == Rates(flops=2 * 16**3 / 0.002, bytes=4000 / 0.004)
    assert shapes[0].shape == (16, 16) and shapes[0].dtype == torch.bfloat16
    assert shapes[1] == 1000
