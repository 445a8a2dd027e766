"""The Triton kernels against the torch loops, under the interpreter and on a GPU."""

import os
import re
import subprocess
import sys

import pytest
import torch

pytest.importorskip("triton")

from llava.pruners.search import dpp, duplicates, duplicates_kernel, farthest, greedy_kernel, kernels  # noqa: E402
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
@pytest.mark.parametrize(("tokens", "kept"), [(576, 64), (576, 192), (576, 575), (2880, 288)])
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


def shared_greedy_map(kernel, budget, rounds=1, width=16):
    """By several programs a tile. The interpreter runs one after another, so a launch ends where they would wait."""
    shape = {"PARTS": 16, "WIDTH": width, "DEPTH": 64}
    return greedy_kernel.greedy_map(kernel, budget, shape, rounds)


@in_interpreter
@pytest.mark.parametrize(("tiles", "tokens", "kept"), SHAPES)
def test_greedy_map_by_several_programs_picks_the_same(tiles, tokens, kept):
    kernel = kernel_of(tokens_of(tiles, tokens, width=140))
    expected_picks, expected_gains = dpp.pivots(kernel, kept)
    picks, gains = shared_greedy_map(kernel, kept)
    assert torch.equal(picks, expected_picks)
    assert torch.allclose(gains, expected_gains, rtol=1e-4, atol=1e-6)


@in_interpreter
def test_a_program_with_all_columns_finds_in_one_launch_what_it_finds_in_one_a_round():
    kernel = kernel_of(tokens_of(2, 64, width=140))
    picks, gains = shared_greedy_map(kernel, 20, rounds=None, width=64)
    again = shared_greedy_map(kernel, 20, width=64)
    assert torch.equal(picks, again[0]) and torch.equal(gains, again[1])
    assert torch.equal(picks, dpp.pivots(kernel, 20)[0])


@in_interpreter
@pytest.mark.parametrize("greedy_map", [kernels.greedy_map, shared_greedy_map])
def test_greedy_map_breaks_ties_by_index(greedy_map):
    # Four copies of each of twelve axes, of one length: every gain is 1 until its axis is there, and then 0.
    kernel = gram(torch.eye(12, 16).repeat(4, 1).unsqueeze(0))
    picks, gains = greedy_map(kernel, 12)
    assert picks.tolist() == [list(range(12))] and (gains == 1).all()


@in_interpreter
@pytest.mark.parametrize("greedy_map", [kernels.greedy_map, shared_greedy_map])
def test_greedy_map_gains_nothing_beyond_the_rank(greedy_map):
    # Six axes with eight tokens each, their lengths powers of two: float32 makes no error.
    tokens = torch.eye(6, 16).repeat(8, 1)
    quality = 2.0 ** -torch.randperm(48, generator=torch.Generator().manual_seed(0)).div(6, rounding_mode="floor")
    kernel = gram(tokens.unsqueeze(0), quality.unsqueeze(0))
    picks, gains = greedy_map(kernel, 20)
    assert torch.equal(picks[:, :6], dpp.pivots(kernel, 6)[0])
    assert (gains[:, :6] > 0).all() and (gains[:, 6:] <= 0).all()
    assert ((picks >= 0) & (picks < 48)).all()


@in_interpreter
@pytest.mark.parametrize("greedy_map", [kernels.greedy_map, shared_greedy_map])
def test_greedy_map_leaves_out_tokens_that_were_not_numbers(greedy_map):
    tokens = tokens_of(2, 40)
    tokens[:, ::4] = torch.nan
    picks, gains = greedy_map(kernel_of(tokens), 20)
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
    weight = torch.rand(tiles, tokens, generator=torch.Generator().manual_seed(2)).mul_(4).floor_()  # a quarter is 0
    expected = farthest.farthest_points(distance, first, kept, weight)
    assert torch.equal(kernels.farthest_points(distance, first, kept, weight), expected)


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
    for rows in (4, 16):
        shape = {"ROWS": rows, "COLUMNS": 16}
        shared = duplicates_kernel.remove_duplicates(cosine, kept, duplicates.REMOVED_PER_ROUND, shape, halves=1)
        assert torch.equal(shared, expected)


@pytest.mark.parametrize("processors", [0, 1, 40, 108, 132])
@pytest.mark.parametrize("tiles", [1, 5, 16, 100])
def test_programs_that_wait_for_each_other_all_have_room(tiles, processors):
    room = {4: 2 * processors, 8: processors, 16: processors}  # by warps
    for tokens in (33, 144, 576, 729, 2880, 4096):
        if shape := duplicates_kernel.shape(tiles, tokens, processors):
            assert tiles * -(-tokens // (2 * shape["ROWS"])) <= room[shape["num_warps"]]
        for kept in (1, 64, 192, 1024):
            if shape := greedy_kernel.shape(tiles, tokens, kept, processors):
                parts = -(-tokens // shape["WIDTH"])
                assert kept <= shape["DEPTH"] and parts <= shape["PARTS"]
                assert tiles * parts <= room[shape["num_warps"]]


def test_tiles_are_shared_where_there_is_room():
    assert greedy_kernel.shape(1, 576, 192, 132) and greedy_kernel.shape(1, 2880, 288, 132)
    assert greedy_kernel.shape(1, 576, 64, 132) is None  # what one program reads is in its cache
    assert duplicates_kernel.shape(16, 544, 132) and not duplicates_kernel.shape(200, 544, 132)
