"""How sensitive a model's projector is to each token, against differences that are written out."""

import pytest
import torch
from torch import nn

from llava.constants import IMAGE_TOKEN_INDEX
from llava.model.encoding import encode
from llava.selecting.options import PruningOptions
from llava.selecting.sensitivity import random_directions

from ..watching import Watching
from .conftest import generate, question_prompts, with_graphs

READS = ("embeds", "sensitivity")
PIXELS = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Sensing(Watching):
    """Asks for few directions of a seed of its own."""

    def asks(self, cue):
        return {"directions": 5, "h": 0.01, "seed": 3} if cue == "sensitivity" else {}


def by_differences(projector: nn.Module, features: torch.Tensor, directions: torch.Tensor, h: float = 0.01):
    """In float64, one direction after the other."""
    project, found = projector.double(), []
    for direction in directions.double():
        moved = project(features.double() + h * direction) - project(features.double() - h * direction)
        found.append(moved.norm(dim=2) / (2 * h))
    return torch.stack(found).mean(dim=0).float()


def told(model, pruner, pixels=PIXELS, **options):
    batch = model.plan_batch(pixels.to(model.dtype), None, [None] * len(pixels), PruningOptions(pruner, **options))
    with torch.no_grad():
        _, late = model.read_batch(batch)
    return late.visuals if late is not None else pruner.told


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_it_is_that_of_differences_whatever_dtype_the_model_has(load, checkpoint, dtype):
    model = load(checkpoint, dtype=dtype)[1]
    found = told(model, Sensing(3, reads=READS)).sensitivity
    projector = model.get_model().mm_projector
    weights = {name: weight.clone() for name, weight in projector.state_dict().items()}
    with torch.no_grad():
        features = model.get_vision_tower()(PIXELS.to(model.dtype))
        expected = by_differences(projector, features, random_directions(5, 48, 3))
    assert found.dtype == torch.float32 and {weight.dtype for weight in weights.values()} == {model.dtype}
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_pruner_that_asks_for_nothing_has_64_directions(load, checkpoint):
    model = load(checkpoint)[1]
    found = told(model, Watching(3, reads=READS)).sensitivity
    with torch.no_grad():
        features = model.get_vision_tower()(PIXELS)
        expected = by_differences(model.get_model().mm_projector, features, random_directions(64, 48, 0))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", [0, 1])
def test_an_image_is_as_sensitive_alone(load, checkpoint, layer):
    model = load(checkpoint)[1]
    found = [told(model, Sensing(3, reads=READS), prune_layer=layer)]
    found += [told(model, Sensing(3, reads=READS), PIXELS[image : image + 1], prune_layer=layer) for image in range(3)]
    if layer:
        together, *alone = ([visual.cues["sensitivity"] for visual in visuals] for visuals in found)
    else:
        together, *alone = (cues.sensitivity for cues in found)
    for image in range(3):
        assert torch.equal(together[image], alone[image][0])


@pytest.mark.parametrize("kind", ["linear", "mlp3x_gelu"])
def test_other_projectors(load, make_checkpoint, kind):
    model = load(make_checkpoint(name=kind, mm_projector_type=kind))[1]
    found = told(model, Sensing(3, reads=READS)).sensitivity
    with torch.no_grad():
        features = model.get_vision_tower()(PIXELS)
        expected = by_differences(model.get_model().mm_projector, features, random_directions(5, 48, 3))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_image_side_with_it_is_one_graph(load, checkpoint):
    torch._dynamo.reset()
    model = load(checkpoint)[1]
    batch = model.plan_batch(PIXELS, None, [None] * 3, PruningOptions(Sensing(3, reads=READS, seen=Nothing())))

    measure = model._measure(batch.plan)

    def read(pixels):
        return encode(batch.plan, model.get_vision_tower(), model._projected, pixels, {}, measure=measure)

    with torch.no_grad():
        expected = read(batch.pixels)
        found = torch.compile(read, fullgraph=True, backend="eager")(batch.pixels)
    assert torch.equal(found[1], expected[1])


class Nothing(list):
    """Keeps none of what is noted."""

    def append(self, _) -> None:
        pass


def test_replayed_it_is_measured_of_each_image(load, checkpoint, images, graphs):
    tokenizer, model, processor, _ = load(checkpoint, pruner=Sensing(3, reads=READS, seen=Nothing()))
    prompts = question_prompts(tokenizer, ["What?"])

    def kept(image):
        generate(model, tokenizer, processor, [image], [None], prompts)
        return model.last_prune.keep[0].tolist()

    expected = [kept(image) for image in images * 2]
    with_graphs(model)
    assert [kept(image) for image in images * 2] == expected
    assert any(graph.calls > 1 for graph in graphs)


def test_training_of_the_projector_is_not_disturbed(load, checkpoint):
    model = load(checkpoint, pruner=Sensing(3, reads=READS))[1]
    projector = model.get_model().mm_projector.requires_grad_(True)
    output = model(torch.tensor([[1, IMAGE_TOKEN_INDEX, 5]]), images=PIXELS[:1])
    output.logits.sum().backward()
    assert all(weight.grad is not None for weight in projector.parameters())
