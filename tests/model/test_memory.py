"""What answering takes of memory: keys and values by the config, and the peak of the process that answers."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from llava.model.memory import kv_mb, peak_mb

WIDE = SimpleNamespace(num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=32, hidden_size=4096)
TAKEN = 'import torch; from llava.model.memory import peak_mb; print(peak_mb(torch.device("cpu")))'


def test_the_cache_of_a_7b_takes_half_a_mebibyte_per_token():
    model = SimpleNamespace(config=WIDE, dtype=torch.float16)
    assert kv_mb(model, 576) == 2 * 32 * 4096 * 2 * 576 / 2**20 == 288
    grouped = SimpleNamespace(**vars(WIDE) | {"num_key_value_heads": 8, "head_dim": 128})
    assert kv_mb(SimpleNamespace(config=grouped, dtype=torch.float32), 1) == 2 * 32 * 8 * 128 * 4 / 2**20


def test_the_peak_of_a_process_grows_with_what_it_holds():
    before = peak_mb(torch.device("cpu"))
    held = torch.ones(2**26)
    assert peak_mb(torch.device("cpu")) >= before > 50
    assert peak_mb(torch.device("cpu")) > held.nbytes / 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process begins with a count of its own")
def test_a_process_does_not_count_what_the_one_that_started_it_held():
    start = f"subprocess.run([sys.executable, '-c', {TAKEN!r}])"
    large = f"import subprocess, sys; held = bytearray(b'1') * (3 << 29); {start}"
    small = subprocess.run([sys.executable, "-c", TAKEN], capture_output=True, text=True, check=True)
    within = subprocess.run([sys.executable, "-c", large], capture_output=True, text=True, check=True)
    assert 50 < float(small.stdout) < 1024 and float(within.stdout) < 1.2 * float(small.stdout)
