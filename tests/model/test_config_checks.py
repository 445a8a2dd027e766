"""What a config asks for and nothing here does is refused when the model loads, with the key and the valid values."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

CASES = {
    "layout": (
        {"image_aspect_ratio": "anyres_max_9"},
        "image_aspect_ratio 'anyres_max_9' is not one of null, square, pad",
    ),
    "layout, case": ({"image_aspect_ratio": "Pad"}, "image_aspect_ratio 'Pad'"),
    "layout, list": ({"image_aspect_ratio": ["pad"]}, "image_aspect_ratio"),
    "no canvases": ({"image_aspect_ratio": "anyres"}, "image_grid_pinpoints None"),
    "merging": ({"mm_patch_merge_type": "spatial_maxpool2x2"}, "not one of flat, spatial, spatial_unpad"),
    "merging, null": ({"mm_patch_merge_type": None}, "mm_patch_merge_type None"),
    "feature": ({"mm_vision_select_feature": "cls"}, "'cls' is not one of patch, cls_patch"),
    "layer": ({"mm_vision_select_layer": -6}, "mm_vision_select_layer -6 is not one of -5 to 4"),
    "layer, text": ({"mm_vision_select_layer": "-2"}, "mm_vision_select_layer '-2'"),
    "layers": ({"mm_vision_select_layer": [-2, -5]}, "mm_vision_select_layer"),
    "projector": ({"mm_projector_type": "resampler"}, "'resampler' .*is not one of linear, mlp<n>x_gelu, identity"),
    "projector, null": ({"mm_projector_type": None}, "mm_projector_type None"),
    "identity": ({"mm_projector_type": "identity"}, "identity: hidden_size is 32.* 48"),
    "resampler": ({"mm_resampler_type": "perceiver"}, "mm_resampler_type 'perceiver'"),
    "width": ({"mm_hidden_size": 1024}, "mm_hidden_size is 1024, the width of mm_vision_tower 48"),
    "several scales": ({"s2": True}, "s2"),
    "siglip": ({"mm_vision_tower": "google/siglip-so400m-patch14-384"}, "siglip-so400m.*nor a CLIP model"),
    "no tower": ({"mm_vision_tower": None}, "mm_vision_tower is None"),
    "marks, text": ({"mm_use_im_start_end": "false"}, "'false' is not one of true, false"),
    "padding": ({"tokenizer_padding_side": "center"}, "not one of null, left, right"),
    "limit": ({"tokenizer_model_max_length": -1}, "tokenizer_model_max_length -1"),
    "activation": ({"hidden_act": "nonsense"}, "hidden_act 'nonsense'"),
    "rope": ({"rope_scaling": {"type": "nonsense", "factor": 2.0}}, "rope_type 'nonsense'"),
    "windows": ({"layer_types": ["sliding_attention"] * 2}, "layer_types 'sliding_attention' is not one of full"),
    "kinds of layers": ({"layer_types": ["linear_attention"] * 2}, "layer_types"),
    "outputs": ({"return_dict": False}, "return_dict false"),
    "typed": ({"hidden_size": "32"}, "hidden_size"),
    "gptq": ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantization_config 'gptq'.*load_4bit"),
    "unquantised": ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "load_4bit"),
    "unknown method": ({"quantization_config": {"quant_method": "nonsense"}}, "quantization_config 'nonsense'"),
    "other class": ({"architectures": ["LlavaQwenForCausalLM"], "model_type": "llava"}, "LlavaQwenForCausalLM"),
    "other type": ({"model_type": "llava_qwen"}, "llava_qwen"),
    "class and type": ({"model_type": "llava_mistral"}, "llava_mistral"),
}


@pytest.fixture
def broken(checkpoint, tmp_path):
    return shutil.copytree(checkpoint, tmp_path / "llava-broken")


def edit(folder, name="config.json", **changes):
    file = folder / name
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def edit_weights(folder, change):
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


@pytest.mark.parametrize("case", CASES)
def test_what_nothing_here_does_is_refused_by_name_before_a_weight_is_read(load, broken, case, monkeypatch):
    changes, message = CASES[case]
    monkeypatch.setattr("llava.model.builder._from_pretrained", lambda *args: pytest.fail("weights are read"))
    edit(broken, **changes)
    with pytest.raises(ValueError, match=message) as caught:
        load(broken)
    assert "config.json" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "pinpoints",
    [
        [],
        "[]",
        "(1x1),(2x2)",
        "[[32",
        [[32, 64], [32]],
        [[32.0, 64]],
        [["32", "64"]],
        [[0, 32]],
        [32, 64],
        {"32": 64},
        3,
    ],
)
def test_canvases_of_another_form_are_refused(load, broken, pinpoints):
    edit(broken, image_aspect_ratio="anyres", image_grid_pinpoints=pinpoints)
    with pytest.raises(ValueError, match=r"config.json: image_grid_pinpoints .*\[\[336, 672\]"):
        load(broken)


def test_canvases_that_tiles_do_not_fill_are_refused_and_their_string_form_is_read(load, broken):
    edit(broken, image_aspect_ratio="anyres", image_grid_pinpoints="[[32, 64], [48, 64]]")
    with pytest.raises(ValueError, match=r"image_grid_pinpoints has \(48, 64\).* 32 pixels"):
        load(broken)
    edit(broken, image_grid_pinpoints="[[32, 64], [64, 64]]")
    load(broken)


@pytest.mark.parametrize("ratio", [None, "square", "pad"])
def test_valid_layouts_load(load, broken, ratio):
    edit(broken, image_aspect_ratio=ratio)
    assert load(broken)[1].config.image_aspect_ratio == ratio


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", {"model_type": "siglip"}, "'siglip'; towers are CLIP's"),
        ("config.json", {"model_type": "dinov2"}, "'dinov2'; towers are CLIP's"),
        ("preprocessor_config.json", {"crop_size": {"height": 48, "width": 48}}, "48 x 48, the tower reads 32 x 32"),
        ("preprocessor_config.json", {"image_mean": "grey"}, "image_mean 'grey'"),
    ],
)
def test_a_tower_of_another_kind_is_refused_by_name(load, broken, clip_folder, file, changes, message):
    tower = shutil.copytree(clip_folder, broken.parent / "eyes")
    edit(broken, mm_vision_tower="../eyes")
    edit(tower, file, **changes)
    with pytest.raises(ValueError, match=message) as caught:
        load(broken)
    assert "eyes" in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_a_broken_file_of_the_tower_is_named(load, broken, clip_folder, name):
    tower = shutil.copytree(clip_folder, broken.parent / "eyes")
    edit(broken, mm_vision_tower="../eyes")
    (tower / name).write_text("{")
    with pytest.raises(ValueError, match=f"eyes/{name}"):
        load(broken)
    (tower / name).unlink()
    with pytest.raises((FileNotFoundError, ValueError), match="eyes"):
        load(broken)


def test_a_tower_that_was_trained_and_is_not_there_is_not_replaced_by_another(load, broken):
    edit(broken, unfreeze_mm_vision_tower=True)
    with pytest.raises(ValueError, match="unfreeze_mm_vision_tower.*no model.vision_tower"):
        load(broken)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 1}, "no place for: model.layers.1"),
        ({"mm_projector_type": "mlp1x_gelu"}, "no place for: model.mm_projector.2"),
        ({"mm_projector_type": "linear"}, "no place for: model.mm_projector.0"),
        ({"mm_projector_type": "mlp3x_gelu"}, "lacks weights: model.mm_projector.4"),
        ({"vocab_size": 950}, r"does not fit its config: lm_head.weight is \(900, 32\), not \(950, 32\)"),
        ({"tie_word_embeddings": True}, "two different tables of words.*tie_word_embeddings"),
    ],
)
def test_weights_that_the_config_does_not_describe_are_named(load, broken, changes, message):
    edit(broken, **changes)
    with pytest.raises(ValueError, match=message):
        load(broken)


def test_weights_of_parts_that_nobody_knows_are_told(load, broken, caplog):
    edit_weights(broken, lambda weights: weights | {"model.vision_resampler.weight": torch.ones(32)})
    load(broken)
    assert any("nothing reads: model.vision_resampler.weight" in message for message in caplog.messages)
    edit_weights(broken, lambda weights: weights | {"model.layers.0.mlp.up_proj.bias": torch.ones(32)})
    with pytest.raises(ValueError, match="no place for: model.layers.0.mlp.up_proj.bias"):
        load(broken)


def test_words_that_are_tied_load_from_one_table(load, broken):
    edit(broken, tie_word_embeddings=True)
    edit_weights(broken, lambda weights: {name: each for name, each in weights.items() if name != "lm_head.weight"})
    model = load(broken)[1]
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_two_ways_to_quantise_exclude_each_other(load, checkpoint):
    with pytest.raises(ValueError, match="load_8bit and load_4bit"):
        load(checkpoint, load_8bit=True, load_4bit=True)


def test_what_bitsandbytes_saved_loads_again(load, make_checkpoint, tmp_path):
    pytest.importorskip("bitsandbytes")
    stock = make_checkpoint(name="wide", hidden_size=64, num_key_value_heads=4)
    _, model, _, _ = load(stock, load_4bit=True)
    model.save_pretrained(tmp_path / "small")
    shutil.copy(stock / "tokenizer.model", tmp_path / "small")
    again = load(tmp_path / "small")[1]
    layer = "model.layers.0.self_attn.q_proj.weight"
    assert again.get_parameter(layer).dtype == model.get_parameter(layer).dtype
    assert (again.get_parameter(layer) == model.get_parameter(layer)).all()
    with pytest.raises(ValueError, match="quantised already"):
        load(tmp_path / "small", load_4bit=True)


def test_a_misspelt_option_names_every_valid_one(load, checkpoint):
    with pytest.raises(TypeError, match="visual_tokens; it takes .*load_4bit.*pruner.*visual_token_num"):
        load(checkpoint, visual_tokens=4)
