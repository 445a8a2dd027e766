"""How many operations a selection launches on a GPU, and that this form of it chooses as the CPU's does."""

import pytest
import torch

from llava.bench.harness import Counter
from llava.pruners import PRUNERS, VisualCues
from llava.pruners.search import dpp, duplicates, farthest
from llava.pruners.search.products import ROWS_OF_A_LAUNCH, gram, unit_vectors

from .conftest import as_on_a_device

# Unit vectors whose cosines are multiples of a quarter: exact in float32, and often tied.
DIRECTIONS = torch.cat([torch.eye(4), torch.cartesian_prod(*[torch.tensor([-0.5, 0.5])] * 4)])
LARGEST_COUNTS = {"cdpruner": 31, "divprune": 14, "vispruner": 15, "mfpruner": 36}

COVERING = {"scope": (22, 9), "mmtok": (56, 13), "eadp": (85, 8)}  # without a kernel: first token, every other one

each_pruner = pytest.mark.parametrize("name", LARGEST_COUNTS)
each_search = pytest.mark.parametrize("name", [*LARGEST_COUNTS, *COVERING])


@pytest.fixture
def kernels(monkeypatch):
    """A kernel for every search, which launches as one operation."""

    def found(search, matrix, *rest):
        budget = rest[1] if search == "farthest_points" else rest[0]
        picks = torch.empty(len(matrix), budget, dtype=torch.int64, device=matrix.device)
        return (picks, picks.view(torch.float64)) if search == "greedy_map" else picks

    for module in (dpp, farthest, duplicates):
        monkeypatch.setattr(module, "compiled", found)


def on_meta(tiles=1, tokens=576, width=4096, dtype=torch.float16, **cues):
    def empty(*shape):
        return torch.empty(shape, dtype=dtype, device="meta")

    number = empty(tiles, tokens)
    return VisualCues(empty(tiles, tokens, 1024), empty(tiles, tokens, width), number, number, **cues)


def operations(call):
    with Counter() as counter:
        call()
    return counter.ops


@each_pruner
def test_a_selection_launches_few_operations(name, kernels):
    cues, pruner = on_meta(), PRUNERS[name](visual_token_num=64)
    assert 0 < operations(lambda: pruner(cues)) <= LARGEST_COUNTS[name] < 40


@pytest.mark.parametrize("name", COVERING)
@pytest.mark.parametrize("budget", [1, 64])
def test_a_selection_without_a_kernel_launches_few_operations_for_every_token(name, budget):
    question = {"text_tokens": (1, 8, 4096), "text_sequence": (1, 1, 77, 768), "joint_embeds": (1, 576, 768)}
    given = {cue: torch.empty(shape, device="meta") for cue, shape in question.items()}
    cues = on_meta(padding=torch.empty(1, 576, device="meta"), **given)
    first, other = COVERING[name]
    assert 0 < operations(lambda: PRUNERS[name](budget)(cues)) <= first + (budget - 1) * other


@each_pruner
def test_tiles_of_several_images_and_tokens_that_do_not_align_take_a_few_more(name, kernels):
    index = torch.empty(5, dtype=torch.int64, device="meta")
    cues, pruner = on_meta(tiles=5, tokens=729, width=1001, image_index=index), PRUNERS[name](64)
    assert 0 < operations(lambda: pruner(cues)) <= LARGEST_COUNTS[name] + 9


@each_search
@pytest.mark.parametrize("tiles", [1, 4])
def test_the_form_of_a_device_breaks_ties_as_that_of_the_cpu(name, tiles):
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        embeds = DIRECTIONS[torch.randint(len(DIRECTIONS), (tiles, 90), generator=generator)]
        attention = torch.randint(9, (tiles, 90), generator=generator) / 8
        cues = VisualCues(embeds, embeds, cls_attention=attention)
        for budget in (1, 4, 30, 89):
            expected = PRUNERS[name](budget)(cues)
            with as_on_a_device():
                assert torch.equal(PRUNERS[name](budget)(cues), expected)


@each_search
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_form_of_a_device_chooses_as_that_of_the_cpu(name, dtype, random_cues):
    for tokens in (16, 63, 144, 300):
        cues = random_cues(seed=tokens, tiles=3, tokens=tokens, width=320, dtype=dtype)
        cues.embeds[0, 3], cues.embeds[1, 5:9], cues.embeds[2, 1] = torch.nan, 0.0, torch.inf
        for budget in (1, tokens // 4, tokens // 2, tokens - 1):
            expected = PRUNERS[name](budget)(cues)
            with as_on_a_device():
                assert torch.equal(PRUNERS[name](budget)(cues), expected)


@pytest.mark.parametrize("tokens", [5, 9, 17, 144, 576, ROWS_OF_A_LAUNCH + 3])  # of 5 and 9 a product is not symmetric
def test_one_product_is_symmetric_and_its_own_alone_and_in_a_batch(tokens):
    unit = unit_vectors(torch.randn(3, tokens, 70, generator=torch.Generator().manual_seed(tokens)))
    with as_on_a_device():
        products = gram(unit)
        assert torch.equal(products, products.mT)
        assert torch.equal(products, torch.cat([gram(tile) for tile in unit.split(1)]))
    assert torch.allclose(products, unit @ unit.mT, rtol=0, atol=1e-6)
