"""Attention as one number per token: equal to the full maps that are never made."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from llava.selecting import attention
from llava.selecting.attention import cls_row, received


def full_maps(query, key, scale):
    """The definition: (B, N, H, d) twice -> (B, H, N, N), a row for each query."""
    return torch.softmax(torch.einsum("bnhd,bmhd->bhnm", query.double(), key.double()) * scale, dim=-1)


def queries_and_keys(seed, batch=2, tokens=7, heads=3, width=4):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, batch, tokens, heads, width, generator=generator).unbind()


def test_the_cls_row_is_the_first_row_of_the_maps():
    query, key = queries_and_keys(0)
    expected = full_maps(query, key, 0.7)[:, :, 0].mean(dim=1)
    torch.testing.assert_close(cls_row(query, key, 0.7).double(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("logits_per_chunk", [1, 100, 2**24])
def test_received_is_the_mean_over_rows_and_heads_of_the_maps(monkeypatch, logits_per_chunk):
    monkeypatch.setattr(attention, "LOGITS_PER_CHUNK", logits_per_chunk)
    query, key = queries_and_keys(1)
    expected = full_maps(query, key, 0.7).mean(dim=(1, 2))
    torch.testing.assert_close(received(query, key, 0.7).double(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("tokens", [17, 577])
def test_what_a_tile_receives_does_not_depend_on_its_company(tokens):
    query, key = queries_and_keys(3, batch=5, tokens=tokens, heads=16, width=8)
    together = received(query, key, 0.3)
    assert torch.equal(together[:2], received(query[:2], key[:2], 0.3))
    alone = [received(query[tile : tile + 1], key[tile : tile + 1], 0.3) for tile in range(5)]
    assert torch.equal(together, torch.cat(alone))


def test_a_key_that_all_queries_look_at_receives_everything():
    query, key = torch.ones(1, 5, 1, 2), torch.zeros(1, 5, 1, 2)
    torch.testing.assert_close(received(query, key, 1.0), torch.full((1, 5), 0.2))
    key[0, 3] = 50.0
    torch.testing.assert_close(received(query, key, 1.0)[0], torch.tensor([0.0, 0, 0, 1, 0]))
    torch.testing.assert_close(cls_row(query, key, 1.0)[0], torch.tensor([0.0, 0, 0, 1, 0]))


@given(seed=st.integers(0, 2**31), tokens=st.integers(1, 20), heads=st.integers(1, 4), scale=st.floats(0.01, 10))
def test_the_attention_of_an_image_sums_to_one(seed, tokens, heads, scale):
    query, key = queries_and_keys(seed, tokens=tokens, heads=heads)
    for row in (cls_row, received):
        torch.testing.assert_close(row(query, key, scale).sum(dim=1), torch.ones(2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("row", [cls_row, received])
def test_probabilities_are_float32_in_a_model_of_bfloat16(row):
    query, key = (tensor.bfloat16() for tensor in queries_and_keys(2))
    given = row(query, key, 0.5)
    assert given.dtype == torch.float32
    torch.testing.assert_close(given, row(query.float(), key.float(), 0.5), atol=5e-3, rtol=0)
    torch.testing.assert_close(given.sum(dim=1), torch.ones(2), atol=1e-5, rtol=0)  # not so in bfloat16


def test_no_map_of_all_pairs_is_made(monkeypatch):
    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            output = function(*args, **(kwargs or {}))
            if isinstance(output, torch.Tensor):
                self.numbers = max(self.numbers, output.numel())
            return output

    monkeypatch.setattr(attention, "LOGITS_PER_CHUNK", 4000)
    query, key = queries_and_keys(3, batch=1, tokens=500, heads=2)
    with Largest() as seen:
        received(query, key, 0.5)
    assert 2000 <= seen.numbers <= 4000  # q and k themselves hold 4000, a map of all pairs 500,000
