"""Reading a batch of images in one pass: what was chosen image by image, without a host read, in as many steps."""

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from llava.bench.flops import Shape
from llava.bench.models import JOINT_WIDTH, random_llava
from llava.constants import IMAGE_TOKEN_INDEX
from llava.model.encoding import encode
from llava.model.layout import ImageLayout
from llava.pruners import resolve_pruner
from llava.selecting.choose import choose
from llava.selecting.options import PruningOptions
from llava.selecting.record import PruneRecord

MAIN = ("cdpruner", "divprune", "vispruner", "mfpruner")
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
VISION |= {"image_size": 112, "patch_size": 14}
TEXT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
BUDGET = 12


def options_of(name: str, **options) -> PruningOptions:
    return PruningOptions(resolve_pruner(name, None if name == "none" else BUDGET), **options)


@pytest.fixture(scope="module")
def on_meta():
    """A model without values: what reads one fails."""
    model = random_llava(Shape(1, 32, 32, 2), 1, torch.device("cpu"), torch.float16, vision=VISION, text=TEXT)
    model = model.to("meta")
    model.get_vision_tower().relevance.weights.to("meta")
    return model


def batch_of(model, name: str, images: int):
    pixels = torch.zeros(images, 3, 112, 112, device="meta", dtype=torch.float16)
    batch = model.plan_batch(pixels, None, ["What is it?"] * images, options_of(name))
    embedded = {"relevance": torch.zeros(images, JOINT_WIDTH, device="meta")}
    return batch, embedded if "relevance" in batch.plan.options.needs else {}


@pytest.mark.parametrize(
    ("name", "images"), [(name, images) for name in ("none", "uniform", "random", *MAIN) for images in (1, 3)]
)
def test_the_image_side_is_one_graph(on_meta, name, images):
    torch._dynamo.reset()
    batch, embedded = batch_of(on_meta, name, images)
    tower = on_meta.get_vision_tower()

    def read(pixels, embedded):
        return encode(batch.plan, tower, on_meta._projected, pixels, embedded)

    with torch.no_grad():
        embeds, positions = torch.compile(read, fullgraph=True, backend="eager")(batch.pixels, embedded)
    kept = images * (64 if name == "none" else BUDGET)
    assert embeds.is_meta and embeds.shape == (kept, 32)
    assert positions is None if name == "none" else positions.shape == (kept,)


class OnDevice(TorchDispatchMode):
    """Counts the operations that compute something on the meta device."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if not function.is_view and any(isinstance(each, Tensor) and each.is_meta for each in tree_leaves(result)):
            self.count += 1
        return result


@pytest.mark.parametrize("name", ["none", "uniform", *MAIN])
def test_more_images_and_prompts_take_no_more_steps(on_meta, name):
    def steps(prompts: int) -> int:
        ids = torch.tensor([[1, IMAGE_TOKEN_INDEX, 5, 6]]).repeat(prompts, 1)
        pixels = torch.zeros(prompts, 3, 112, 112, device="meta", dtype=torch.float16)
        tower = on_meta.get_vision_tower()
        tower.relevance._embeddings["What?"] = torch.zeros(JOINT_WIDTH, device="meta")
        inputs = (ids, None, None, pixels, None, "What?", "left", options_of(name))
        with OnDevice() as device, torch.no_grad():
            embeds = on_meta._splice_batch(*inputs)[0]
        assert embeds.shape == (prompts, 3 + (64 if name == "none" else BUDGET), 32)
        return device.count

    assert steps(2) == steps(7)


@pytest.mark.parametrize("scope", [None, "tile", "image"])
@pytest.mark.parametrize("name", [*MAIN, "uniform", "random", "cls_topk"])
def test_every_image_is_read_as_it_would_be_alone_and_step_by_step(load, anyres_checkpoint, name, scope):
    """Tiles of different numbers, newline tokens, and an image without a question among the others."""
    model = load(anyres_checkpoint, pruner=name, visual_token_num=5, budget_scope=scope)[1]
    tower, newline = model.get_vision_tower(), model.get_model().image_newline
    generator = torch.Generator().manual_seed(1)
    images = [torch.randn(tiles, 3, 32, 32, generator=generator) for tiles in (5, 4, 4, 1)]
    sizes, texts = [(90, 70), (30, 96), (96, 30), (32, 32)], ["What?", None, "How many are there?", "Is it red?"]
    batch = model.plan_batch(images, sizes, texts, model.pruning)
    with torch.no_grad():
        found, late = model.read_batch(batch)
    assert late is None
    first = 0
    for number, (kept, count) in enumerate(zip(model.last_prune.keep, found.counts, strict=True)):
        alone = model.plan_batch(
            images[number : number + 1], sizes[number : number + 1], [texts[number]], model.pruning
        )
        layout: ImageLayout = alone.plan.layouts[0]
        with torch.no_grad():
            features, cues = tower.cues(images[number], model.pruner.needs, [texts[number]] * len(images[number]))
            cues |= {"features": features, "embeds": model._projected(features)}
            visuals = alone.plan.visuals(cues, newline)
            (expected,) = choose(model.pruning, visuals).kept
            embeds = layout.take(cues["embeds"], expected, newline)
        assert torch.equal(kept, expected) and len(kept) == count
        assert torch.equal(found.embeds[first : first + count], embeds)
        assert torch.equal(found.positions[first : first + count], expected)
        counted = PruneRecord.of(visuals, [expected])
        assert model.last_prune.newline_tokens[number] == counted.newline_tokens[0]
        first += count
    assert first == len(found.embeds)


def test_embeddings_follow_the_projector_to_its_device(load, checkpoint):
    """Spread over several devices, tower and projector may lie apart; the plan and the cues follow."""
    model = load(checkpoint, pruner="mfpruner", visual_token_num=5)[1]
    model._projected = lambda features: torch.nn.Linear(48, 32, device="meta")(features.to("meta"))
    read, _ = model.read_batch(model.plan_batch(torch.zeros(2, 3, 32, 32), None, ["What?"] * 2, model.pruning))
    assert read.embeds.is_meta and read.embeds.shape == (10, 32) and read.positions.is_meta
