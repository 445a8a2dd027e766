"""Attention that is received, states before a merger and rows of a grid: told of every family, against the long way."""

import inspect

import pytest
import torch

from llava.pruning import prune
from llava.pruning.families import family_of
from llava.selecting.sensitivity import random_directions

from ...watching import Watching, given
from ..conftest import BUILDERS
from .test_qwen import QWENS, eager_maps, encode, in_raster_order

ENCODERS = {
    "llava": "image",
    "llava_next": "image",
    "llava_next_video": "image",
    "onevision": "image",
    "video_llava": "video",
}
RECEIVED = ("object_attention", "deep_attention")


def told(tiny, *reads, layer=2, **options):
    """What a pruner is told of a batch, by number of tokens and of tiles."""
    pruner = Watching(1, reads=("embeds", *reads), layer=layer)
    with prune(tiny.model, pruner, **options) as record, torch.no_grad():
        tiny.model(**tiny.inputs)
    assert record.keep is not None and pruner.seen
    return pruner.seen


def recorded(tiny, modality, *needs, layer):
    """The cues as they are noted while the batch's images or videos are encoded; and the pixels of the encoder."""
    family, pixels = family_of(tiny.model)(tiny.model), []
    handle = family.tower(modality).register_forward_pre_hook(lambda module, args: pixels.extend(args[:1]))
    method = getattr(tiny.model.model, f"get_{modality}_features")
    names = inspect.signature(method).parameters
    arguments = {name: value for name, value in tiny.inputs.items() if name in names}
    own = arguments.get("vision_feature_layer")
    with family.recording(modality, frozenset(needs), own, lambda _: {"layer": layer}) as tape, torch.no_grad():
        method(**arguments)
    handle.remove()
    family.forget()
    return tape, *pixels[:1]


@pytest.mark.parametrize("layer", [1, 2, 3])
@pytest.mark.parametrize(("name", "modality"), ENCODERS.items())
def test_received_attention_is_the_mean_of_eager_maps(tiny_of, name, modality, layer):
    tiny = tiny_of(name)
    tape, pixels = recorded(tiny, modality, *RECEIVED, layer=layer)
    tiny.model.set_attn_implementation("eager")
    with torch.no_grad():
        maps = family_of(tiny.model)(tiny.model).tower(modality)(pixels, output_attentions=True).attentions
    deep = -1 if name == "onevision" else -2  # the layer of the features
    torch.testing.assert_close(tape["object_attention"], maps[layer - 1].mean(dim=(1, 2)), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(tape["deep_attention"], maps[deep].mean(dim=(1, 2)), atol=1e-6, rtol=1e-5)


def test_the_call_itself_may_name_the_layer_of_its_features(tiny_of):
    tiny = tiny_of("llava")
    tiny.inputs["vision_feature_layer"] = -1
    tape, pixels = recorded(tiny, "image", *RECEIVED, layer=1)
    tiny.model.set_attn_implementation("eager")
    with torch.no_grad():
        maps = tiny.model.model.vision_tower(pixels, output_attentions=True).attentions
    torch.testing.assert_close(tape["deep_attention"], maps[-1].mean(dim=(1, 2)), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", BUILDERS)
def test_every_family_gives_received_attention_of_its_tokens(tiny_of, name):
    for cues in told(tiny_of(name), *RECEIVED):
        assert given(cues) == {"embeds", *RECEIVED}
        assert all((getattr(cues, cue) > 0).all() for cue in RECEIVED)


@pytest.mark.parametrize("modality", ["image", "video"])
@pytest.mark.parametrize("name", QWENS)
def test_a_block_of_qwen_is_the_one_that_is_asked_for(tiny_of, monkeypatch, name, modality):
    tiny = tiny_of(f"{name}_{modality}s")
    block = tiny.model.model.visual.blocks[1]  # that of Qwen2.5 that attends to whole images
    of_patches = [heads.mean(dim=(0, 1)) for heads in eager_maps(tiny, modality, block, monkeypatch)]
    of_tokens = in_raster_order(tiny, name, modality, torch.cat(of_patches).unflatten(0, (-1, 4)).mean(dim=1))
    for cues in told(tiny, "object_attention", layer=2):
        found = cues.object_attention
        assert any(
            one.numel() == found.numel() and torch.allclose(one.view_as(found), found, atol=1e-6) for one in of_tokens
        )


@pytest.mark.parametrize("modality", ["image", "video"])
@pytest.mark.parametrize("name", QWENS)
def test_premerger_is_the_mean_of_the_patches_that_a_token_is_made_of(tiny_of, name, modality):
    tiny, seen = tiny_of(f"{name}_{modality}s"), []
    merger = tiny.model.model.visual.merger
    handle = merger.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    encode(tiny, modality)
    handle.remove()
    means = in_raster_order(tiny, name, modality, seen[0].unflatten(0, (-1, 4)).mean(dim=1))
    expected = {frame_length: one for one, frame_length in zip(means, frame_lengths(tiny, modality), strict=True)}
    for cues in told(tiny, "premerger"):
        tiles, tokens = cues.shape
        torch.testing.assert_close(cues.premerger, expected[tokens].view(tiles, tokens, -1), atol=1e-6, rtol=1e-6)


def frame_lengths(tiny, modality):
    return [rows * columns // 4 for _, rows, columns in tiny.inputs[f"{modality}_grid_thw"].tolist()]


@pytest.mark.parametrize("name", QWENS)
def test_tokens_of_qwen_stand_in_rows_and_columns(tiny_of, name):
    grids = {cues.shape[1]: cues.grid for cues in told(tiny_of(f"{name}_images"))}
    assert grids == {15: (3, 5), 4: None, 6: (2, 3)}
    grids = {cues.shape[1]: cues.grid for cues in told(tiny_of(f"{name}_videos"))}
    assert grids == {6: (2, 3), 2: (1, 2)}


def test_the_grid_of_an_image_that_is_not_square_is_known_without_its_padding(tiny_of):
    grids = {(cues.shape, cues.grid) for cues in told(tiny_of("llava_next"))}
    assert grids == {((2, 16), None), ((1, 64), None), ((1, 32), (4, 8))}
    grids = {cues.grid for cues in told(tiny_of("onevision"))}
    assert grids == {None}  # 5 x 5


@pytest.mark.parametrize("name", [name for name in BUILDERS if not name.startswith("qwen")])
def test_others_have_no_premerger_and_no_border(tiny_of, name):
    for cues in told(tiny_of(name), "premerger", "padding"):
        assert given(cues) == {"embeds"}


@pytest.mark.parametrize("layer", [0, 4, 9])
@pytest.mark.parametrize("name", ["llava", "onevision", "qwen2_images", "internvl"])
def test_a_block_that_is_not_there_is_refused_before_anything_is_hooked(tiny_of, name, layer):
    tiny = tiny_of(name)
    with pytest.raises(ValueError, match=f"object_attention of block {layer}: .* whole image are 1 to 3"):
        prune(tiny.model, Watching(1, reads=("object_attention",), layer=layer))
    assert not hasattr(tiny.model, "_pruning") and not tiny.model._forward_hooks


@pytest.mark.parametrize("layer", [1, 3])
def test_a_block_that_attends_within_windows_is_refused(tiny_of, layer):
    with pytest.raises(
        ValueError, match=f"object_attention of block {layer}: .* whole image are 2; object_layer says which is read"
    ):
        prune(tiny_of("qwen2_5_images").model, Watching(1, reads=("object_attention",), layer=layer))


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_half_precision(tiny_of, name, dtype):
    tiny = tiny_of(name)
    tiny.model.to(dtype)
    tiny.inputs = {key: value.to(dtype) if value.is_floating_point() else value for key, value in tiny.inputs.items()}
    for cues in told(tiny, *RECEIVED, "premerger"):
        assert {getattr(cues, name).dtype for name in given(cues)} == {torch.float32}


@pytest.mark.parametrize("name", ["llava", "llava_next", "onevision", "video_llava", "internvl"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sensitivity_is_that_of_the_projector_written_out(tiny_of, name, dtype):
    tiny = tiny_of(name)
    tiny.model.to(dtype)
    tiny.inputs = {key: value.to(dtype) if value.is_floating_point() else value for key, value in tiny.inputs.items()}
    tape, *_ = recorded(tiny, ENCODERS.get(name, "image"), "sensitivity", layer=2)
    features, projector = tape["features"], family_of(tiny.model)(tiny.model).projector()
    assert {weight.dtype for weight in projector.parameters()} == {dtype}
    expected = by_differences(projector.double(), features.double())
    torch.testing.assert_close(tape["sensitivity"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("modality", ["image", "video"])
@pytest.mark.parametrize("name", QWENS)
def test_a_token_of_qwen_is_as_sensitive_as_the_patches_that_it_is_made_of(tiny_of, name, modality):
    tiny, seen = tiny_of(f"{name}_{modality}s"), []
    merger = tiny.model.model.visual.merger
    handle = merger.register_forward_pre_hook(lambda module, args: seen.append(args[0].double()))
    found = told(tiny, "sensitivity")
    handle.remove()
    units = seen[0].unflatten(0, (-1, 4)).flatten(1)  # (N, 4 C)
    merged = by_differences(lambda rows: merger.double()(rows.unflatten(1, (4, -1)).flatten(0, 1)), units)
    for_each = in_raster_order(tiny, name, modality, merged)
    expected = {length: one for one, length in zip(for_each, frame_lengths(tiny, modality), strict=True)}
    for cues in found:
        torch.testing.assert_close(cues.sensitivity.flatten(), expected[cues.shape[1]], rtol=1e-4, atol=1e-5)


def by_differences(project, features, h=3e-3):
    """In float64, one direction after the other; Qwen2.5's norm rounds to float32, which a smaller step would show."""
    directions, lengths = random_directions(64, features.shape[-1], 0).double(), []
    with torch.no_grad():
        for direction in directions:
            moved = project(features + h * direction) - project(features - h * direction)
            lengths.append(moved.norm(dim=-1) / (2 * h))
    return torch.stack(lengths).mean(dim=0).float()


@pytest.mark.parametrize("name", BUILDERS)
def test_every_family_says_how_sensitive_its_tokens_are(tiny_of, name):
    for cues in told(tiny_of(name), "sensitivity"):
        assert given(cues) == {"embeds", "sensitivity"} and (cues.sensitivity > 0).all()
