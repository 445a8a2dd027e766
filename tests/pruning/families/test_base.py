"""Cues of LLaVA's families in Transformers: taken from the right block, and sent the way of the tokens."""

import inspect
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import CLIPConfig, CLIPModel

from llava.pruning import prune
from llava.pruning.families import family_of

LLAVAS = ["llava", "llava_next", "llava_next_video", "onevision", "video_llava"]
MODALITIES = [
    *[(name, "image") for name in LLAVAS],
    *[(name, "video") for name in LLAVAS if name not in ("llava", "llava_next")],
]
CLIP = Path(__file__).parents[2] / "e2e" / "checkpoints" / "clip"  # features of 96 numbers, where the tiny ones have 24


def arguments_of(tiny, modality):
    """What the batch hands to ``get_image_features`` or ``get_video_features``."""
    names = inspect.signature(getattr(tiny.model.model, f"get_{modality}_features")).parameters
    return {name: value for name, value in tiny.inputs.items() if name in names}


def recorded(tiny, family, modality):
    with family.recording(modality, frozenset({"cls_attention"})) as tape, torch.no_grad():
        getattr(tiny.model.model, f"get_{modality}_features")(**arguments_of(tiny, modality))
    return tape


def tower_pixels(tiny, family, modality):
    """The tiles or frames that the encoder was called with."""
    seen = []
    handle = family.tower(modality).register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    recorded(tiny, family, modality)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize(
    "name, modality, attention",
    [
        *[(name, modality, "cls") for name, modality in MODALITIES if name != "onevision"],
        *[(name, modality, "received") for name, modality in MODALITIES],
    ],
)
def test_the_attention_is_that_of_eager_maps(tiny_of, name, modality, attention):
    tiny = tiny_of(name)
    family = family_of(tiny.model)(tiny.model, attention)
    tape = recorded(tiny, family, modality)
    pixels = tower_pixels(tiny, family, modality)
    tiny.model.set_attn_implementation("eager")
    with torch.no_grad():
        maps = family.tower(modality)(pixels, output_attentions=True).attentions  # of each block (B, H, N, N)
    # The features are those of the block before the last: CLIP's layer -2.
    expected = maps[-2][:, :, 0].mean(dim=1) if attention == "cls" else maps[-1].mean(dim=(1, 2))
    torch.testing.assert_close(tape["cls_attention"], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("layer, block", [(1, 0), (3, 2), (-1, 2), (-3, 0), ([1, -2], 1)])
def test_the_attention_of_cls_is_from_the_block_that_made_the_features(tiny_of, layer, block):
    model = tiny_of("llava").model
    model.config.vision_feature_layer = layer
    family = family_of(model)(model)
    assert family.attention_block("image") is family.blocks("image")[block]


@pytest.mark.parametrize("name", LLAVAS)
def test_features_in_the_projector_are_the_embeddings(tiny_of, spy, name):
    """Tokens and their features stand in one order, with unpadding, newlines, scaling and pooling."""
    tiny = tiny_of(name)
    projector = tiny.model.model.multi_modal_projector
    projector.act = nn.Identity()  # scaling before or behind an affine map is the same
    with prune(tiny.model, spy), torch.no_grad():
        tiny.model(**tiny.inputs)
        assert spy.told
        for cues in spy.told:
            torch.testing.assert_close(projector(cues.features), cues.embeds, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name, modality", MODALITIES)
def test_attention_goes_the_way_of_the_features(tiny_of, name, modality):
    tiny = tiny_of(name)
    family = family_of(tiny.model)(tiny.model)
    tape = recorded(tiny, family, modality)
    extra = tape["cls_attention"].shape[1] - tape["features"].shape[1]  # [CLS], where it is no visual token
    tape["cls_attention"] = nn.functional.pad(tape["features"][:, :, 0], (extra, 0), value=99.0)
    visuals = family.visuals(modality, arguments_of(tiny, modality), tape, clip=False)
    for visual in visuals:
        torch.testing.assert_close(visual.cues["cls_attention"], visual.cues["features"][:, 0], atol=1e-6, rtol=1e-6)
        if visual.newline is not None:
            assert not visual.cues["features"][visual.newline].any()
            assert not visual.newline[torch.cat([part.positions for part in visual.parts])].any()


@pytest.mark.parametrize(
    "name, modality",
    [pair for pair in MODALITIES if pair[0] != "onevision" and pair != ("llava_next_video", "video")],  # these pool
)
def test_patches_for_a_text_tower_are_the_features_in_clips_last_layer_norm(tiny_of, name, modality):
    tiny = tiny_of(name)
    family = family_of(tiny.model)(tiny.model)
    tape = recorded(tiny, family, modality)
    for visual in family.visuals(modality, arguments_of(tiny, modality), tape, clip=True):
        patches = torch.cat([part.positions for part in visual.parts])
        normalised = family.tower(modality).post_layernorm(visual.cues["features"][patches])
        torch.testing.assert_close(visual.cues["clip_patches"][patches], normalised, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", LLAVAS)
def test_cls_attends_where_there_is_a_cls_token(tiny_of, name):
    model = tiny_of(name).model
    assert family_of(model)(model).attention == ("received" if name == "onevision" else "cls")


def test_an_encoder_without_cls_has_no_attention_of_it(tiny_of):
    with pytest.raises(ValueError, match="valid: received"):
        prune(tiny_of("onevision").model, "vispruner", visual_token_num=2, attention="cls")


@pytest.mark.parametrize(
    "name, layer, message", [("onevision", -1, "siglip_vision_model"), ("llava", [1, -2], r"layer \[1, -2\]")]
)
def test_clip_text_is_refused_where_patches_are_not_of_clip(tiny_of, name, layer, message):
    model = tiny_of(name).model
    model.config.vision_feature_layer = layer
    with pytest.raises(ValueError, match=message):
        prune(model, "cdpruner", visual_token_num=2, relevance="clip_text", text_tower=str(CLIP), texts="What?")
    assert not hasattr(model, "_pruning")


def test_another_clip_than_the_encoders_is_refused(tiny_of):
    with pytest.raises(ValueError, match="96 features, those of the model's encoder 24"):
        prune(
            tiny_of("llava").model, "cdpruner", visual_token_num=2, relevance="clip_text", text_tower=str(CLIP),
            texts="What?",
        )  # fmt: skip


def test_a_clip_without_its_text_side_is_refused(tiny_of, tmp_path):
    model = tiny_of("llava").model
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 8}
    clip = CLIPModel(CLIPConfig(text_config=sizes, vision_config={**sizes, "image_size": 8, "patch_size": 2}))
    weights = {name: each for name, each in clip.state_dict().items() if not name.startswith("text_model.encoder")}
    clip.save_pretrained(tmp_path, state_dict=weights)
    with pytest.raises(ValueError, match="lacks 16 weights, text_model.encoder.layers.0"):
        prune(model, "cdpruner", visual_token_num=2, relevance="clip_text", text_tower=str(tmp_path), texts="What?")


@pytest.mark.parametrize("attention", ["cls", "received"])
def test_sums_over_heads_do_not_round_to_the_dtype_of_the_model(tiny_llava, attention):
    """As for LLaVA's own tower; of unsplit heads the products are sums of many numbers."""
    family = family_of(tiny_llava.model)(tiny_llava.model, attention)
    query, key = (4 * torch.randn(2, 17, 4, 32)).bfloat16(), (4 * torch.randn(2, 17, 4, 32)).bfloat16()
    names = {"keys", "last_attention"}
    cues, expected = family.cues_of(names, query, key, 1.0), family.cues_of(names, query.float(), key.float(), 1.0)
    assert all(torch.equal(cues[name], expected[name]) for name in names)
