import pytest

from llava.convert.names import hf_name, is_tower, llava_name, tower_name

NAMES = [  # LLaVA's, Transformers' on the hub, Transformers' in memory
    ("lm_head.weight", "language_model.lm_head.weight", "lm_head.weight"),
    ("model.norm.weight", "language_model.model.norm.weight", "model.language_model.norm.weight"),
    (
        "model.layers.3.mlp.up_proj.weight",
        "language_model.model.layers.3.mlp.up_proj.weight",
        "model.language_model.layers.3.mlp.up_proj.weight",
    ),
    (
        "model.mm_projector.0.bias",
        "multi_modal_projector.linear_1.bias",
        "model.multi_modal_projector.linear_1.bias",
    ),
    (
        "model.mm_projector.2.weight",
        "multi_modal_projector.linear_2.weight",
        "model.multi_modal_projector.linear_2.weight",
    ),
    ("model.image_newline", "image_newline", "model.image_newline"),
    (
        "model.vision_tower.vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight",
        "vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight",
        "model.vision_tower.encoder.layers.0.mlp.fc1.weight",
    ),
]


@pytest.mark.parametrize(("llava", "hub", "memory"), NAMES)
def test_a_weight_has_one_name_on_either_side(llava, hub, memory):
    assert hf_name(llava) == hub
    assert {llava_name(name) for name in (llava, hub, memory)} == {llava}


def test_the_tower_is_found_with_clips_old_prefix_and_without():
    tower = "model.vision_tower.vision_tower.vision_model.pre_layrnorm.bias"
    assert tower_name("vision_model.pre_layrnorm.bias") == tower_name("pre_layrnorm.bias") == tower
    assert llava_name("model.vision_tower.vision_tower.pre_layrnorm.bias") == tower
    assert is_tower(tower)


@pytest.mark.parametrize(
    "name", ["text_model.encoder.layers.0.mlp.fc1.bias", "visual_projection.weight", "logit_scale"]
)
def test_clips_text_side_and_projections_are_not_the_towers(name):
    assert tower_name(name) is None
