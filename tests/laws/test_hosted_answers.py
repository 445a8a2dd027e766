"""Models of Transformers' own keep the tokens and give the answers that are recorded, with every pruner."""

import zlib

import pytest
import torch

from llava.pruning import prune
from llava.pruning.families import family_of

from ..pruning.conftest import BUILDERS, IMAGE, VIDEO, Tiny, build
from .recording import GOLDEN, PRUNERS

RECORDED = GOLDEN / "answers" / "hosted.json"
RATIO, STEPS = 0.2, 4


@pytest.fixture(scope="module", autouse=True)
def supported(can_prune) -> None:
    """What ``prune`` needs."""


@pytest.fixture(scope="module", params=BUILDERS)
def tiny(request) -> tuple[str, Tiny]:
    """A tiny model, and its name; the weights are drawn by their names, however the model is put together."""
    tiny = build(request.param)
    for name, parameter in tiny.model.named_parameters():
        parameter.data = drawn(name, parameter) * 0.3
    tiny.model.get_output_embeddings().weight.data[[IMAGE, VIDEO]] = 0  # no answer holds a placeholder
    pixels = {name: value for name, value in tiny.inputs.items() if value.is_floating_point()}
    older = {"pixel_values_images": "pixel_values"}
    tiny.inputs |= {name: drawn(older.get(name, name), value) for name, value in pixels.items() if "pixel" in name}
    return request.param, tiny


def drawn(name: str, like: torch.Tensor) -> torch.Tensor:
    """Random numbers that depend on a name and a shape."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return torch.randn(like.shape, generator=generator)


def answer(tiny: Tiny, name: str, layer: int) -> dict:
    """What is kept of every image or video, and the ids that are answered."""
    with prune(tiny.model, name, keep_ratio=RATIO, prune_layer=layer) as record:
        ids = tiny.model.generate(**tiny.inputs, max_new_tokens=STEPS, do_sample=False)
    keep = [" ".join(map(str, kept.flatten().tolist())) for kept in record.keep]
    new = ids[:, tiny.inputs["input_ids"].shape[1] :].tolist()
    assert list(record.visual_tokens) == [len(kept.split()) for kept in keep]
    return {"keep": keep, "ids": [" ".join(map(str, row)) for row in new]}


@pytest.fixture
def off_by_rounding(tiny):
    """Let the model of a test have weights that are off by rounding errors, as often as it is called."""
    _, built = tiny
    exact = {name: parameter.data.clone() for name, parameter in built.model.named_parameters()}

    def disturb(seed: int) -> None:
        for name, parameter in built.model.named_parameters():
            parameter.data = exact[name] * (1 + 1e-6 * drawn(f"{name} {seed}", parameter))

    yield disturb
    for name, parameter in built.model.named_parameters():
        parameter.data = exact[name]


@pytest.mark.parametrize("inside", [False, True], ids=["before", "inside"])
@pytest.mark.parametrize("name", PRUNERS)
def test_keeps_and_answers_what_is_recorded(tiny, name, inside, recording, records, off_by_rounding):
    family, built = tiny
    layer = family_of(built.model)(built.model).first_prune_layer() if inside else 0
    case = f"{family}, {name}" + f", layer {layer}" * inside

    def observe(seed: int = 0) -> dict:
        if seed:
            off_by_rounding(seed)
        try:
            return answer(built, name, layer)
        except (TypeError, ValueError):
            return {"refused": True}

    recording.check(case, observe(), map(observe, (1, 2)))
