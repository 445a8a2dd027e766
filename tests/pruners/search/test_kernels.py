"""The Triton kernels against the torch loops, under the interpreter and on a GPU."""

import os
import re
import subprocess
import sys

import pytest
import torch

pytest.importorskip("triton")

from llava.pruners.search import dpp, duplicates, farthest, kernels  # noqa: E402
from llava.pruners.search.products import gram, unit_vectors  # noqa: E402

interpreted = os.environ.get("TRITON_INTERPRET") == "1"
in_interpreter = pytest.mark.skipif(not interpreted, reason="is run by test_under_the_interpreter")
SHAPES = [(1, 33, 8), (2, 64, 21), (2, 30, 29), (1, 17, 16), (1, 130, 20)]  # tiles, tokens, kept


def tokens_of(tiles, tokens, width=40, seed=0):
    return torch.randn(tiles, tokens, width, generator=torch.Generator().manual_seed(seed))


def kernel_of(tokens, seed=1):
    """A DPP kernel of the tokens' cosines and random qualities."""
    quality = torch.rand(tokens.shape[:2], generator=torch.Generator().manual_seed(seed)) + 0.1
    return gram(unit_vectors(tokens), quality)


def distances(tokens):
    distance = 1 - gram(unit_vectors(tokens))
    distance.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
    return distance


def test_under_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    if interpreted:
        pytest.skip("this is the interpreter")
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0 and re.search(r"\d+ passed", run.stdout), run.stdout + run.stderr


@pytest.mark.gpu
@pytest.mark.parametrize(("tokens", "kept"), [(576, 64), (576, 575), (2880, 288)])
def test_a_gpu_searches_as_the_cpu_does(tokens, kept):
    x = tokens_of(2, tokens, width=1024)
    first = torch.arange(2).unsqueeze(1)
    kernel, distance, cosine = kernel_of(x), distances(x), gram(unit_vectors(x))
    on_cpu = dpp.pivots(kernel, kept)[0], farthest.farthest_points(distance, first, kept)
    on_gpu = dpp.pivots(kernel.cuda(), kept)[0], farthest.farthest_points(distance.cuda(), first.cuda(), kept)
    assert all(torch.equal(*picks) for picks in zip(on_cpu, (picks.cpu() for picks in on_gpu), strict=True))
    removed = duplicates.least_duplicated(cosine.cuda(), kept).cpu()
    assert torch.equal(removed, duplicates.least_duplicated(cosine, kept))


@in_interpreter
@pytest.mark.parametrize(("tiles", "tokens", "kept"), SHAPES)
def test_greedy_map_picks_in_the_same_order_with_the_same_gains(tiles, tokens, kept):
    kernel = kernel_of(tokens_of(tiles, tokens, width=140))
    expected_picks, expected_gains = dpp.pivots(kernel, kept)
    picks, gains = kernels.greedy_map(kernel, kept)
    assert torch.equal(picks, expected_picks)
    assert torch.allclose(gains, expected_gains, rtol=1e-4, atol=1e-6)


@in_interpreter
def test_greedy_map_gains_nothing_beyond_the_rank():
    # Six axes with eight tokens each, their lengths powers of two: float32 makes no error.
    tokens = torch.eye(6, 16).repeat(8, 1)
    quality = 2.0 ** -torch.randperm(48, generator=torch.Generator().manual_seed(0)).div(6, rounding_mode="floor")
    kernel = gram(tokens.unsqueeze(0), quality.unsqueeze(0))
    picks, gains = kernels.greedy_map(kernel, 20)
    assert torch.equal(picks[:, :6], dpp.pivots(kernel, 6)[0])
    assert (gains[:, :6] > 0).all() and (gains[:, 6:] <= 0).all()
    assert ((picks >= 0) & (picks < 48)).all()


@in_interpreter
def test_greedy_map_leaves_out_tokens_that_were_not_numbers():
    tokens = tokens_of(2, 40)
    tokens[:, ::4] = torch.nan
    picks, gains = kernels.greedy_map(kernel_of(tokens), 20)
    assert (gains > 0).all() and (picks % 4 != 0).all()
    assert torch.equal(picks, dpp.pivots(kernel_of(tokens), 20)[0])


@in_interpreter
@pytest.mark.parametrize("spoilt", [False, True])
@pytest.mark.parametrize(("tiles", "tokens", "kept"), [*SHAPES, (2, 20, 1)])
def test_farthest_points_are_the_same_in_the_same_order(tiles, tokens, kept, spoilt):
    x = tokens_of(tiles, tokens)
    if spoilt:
        x[:, 3:9], x[:, -2] = x[:, 9:10], torch.nan
    distance, first = distances(x), torch.arange(tiles).unsqueeze(1) + 4
    expected = farthest.farthest_points(distance, first, kept)
    assert torch.equal(kernels.farthest_points(distance, first, kept), expected)


@in_interpreter
@pytest.mark.parametrize("spoilt", [False, True])
@pytest.mark.parametrize(("tiles", "tokens", "kept"), [*SHAPES, (2, 35, 1), (1, 2, 1)])
def test_the_same_duplicates_are_removed_and_ties_break_alike(tiles, tokens, kept, spoilt):
    x = tokens_of(tiles, tokens)
    if spoilt:
        x = x.sign()[..., :4]  # sixteen directions, so that most tokens have equals
        x[:, 1] = torch.nan
    cosine = gram(unit_vectors(x))
    expected = duplicates.least_duplicated(cosine, kept)
    assert torch.equal(kernels.remove_duplicates(cosine, kept, duplicates.REMOVED_PER_ROUND), expected)
