"""The random baseline is random in its seed and in nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import llava.pruners
from llava.pruners import PRUNERS
from llava.pruners.random import RandomPruner


def test_a_seed_repeats_itself_and_another_differs(random_cues):
    cues = random_cues(tokens=100)
    assert torch.equal(RandomPruner(20, seed=3)(cues), RandomPruner(20, seed=3)(cues))
    assert not torch.equal(RandomPruner(20, seed=3)(cues), RandomPruner(20, seed=4)(cues))


def test_the_set_depends_on_the_place_in_the_image_alone(random_cues):
    mixed = RandomPruner(20)(random_cues(tiles=5, tokens=100, image_index=torch.tensor([7, 2, 7, 7, 2])))
    alone = RandomPruner(20)(random_cues(seed=1, tiles=3, tokens=100))
    assert torch.equal(mixed[[0, 2, 3]], alone)
    assert torch.equal(mixed[[1, 4]], alone[:2])


def test_tiles_of_one_image_differ(random_cues):
    first, second = RandomPruner(20)(random_cues(tiles=2, tokens=100))
    assert not torch.equal(first, second)


def test_a_larger_budget_keeps_what_a_smaller_one_kept(random_cues):
    cues = random_cues(tokens=100)
    small, large = (set(RandomPruner(budget)(cues)[0].tolist()) for budget in (20, 50))
    assert small < large


def test_the_state_of_torch_is_neither_read_nor_changed(random_cues):
    cues = random_cues(tokens=100)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = RandomPruner(20)(cues)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(RandomPruner(20)(cues), first)


def test_another_process_draws_the_same(random_cues):
    code = (
        "import torch; from llava.pruners import PRUNERS, VisualCues; "
        "print(PRUNERS['random'](9, seed=5)(VisualCues(features=None, embeds=torch.zeros(2, 60, 1))).tolist())"
    )
    root = Path(llava.pruners.__file__).parent.parent.parent
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str(RandomPruner(9, seed=5)(random_cues(tiles=2, tokens=60)).tolist())


def test_every_token_is_kept_equally_often(random_cues):
    cues = random_cues(tiles=400, tokens=12, width=1)
    counts = RandomPruner(3, seed=1)(cues).flatten().bincount(minlength=12)
    # 100 expected, standard deviation 8.7.
    assert counts.sum() == 1200 and counts.min() > 65 and counts.max() < 135


@pytest.mark.parametrize("seed", [-1, 0.5, True, "1"])
def test_a_wrong_seed_is_named(seed):
    with pytest.raises(ValueError, match="seed must be an integer, 0 or more"):
        PRUNERS["random"](4, seed=seed)
