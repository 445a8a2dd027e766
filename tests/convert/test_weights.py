import pytest
import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from llava.convert.names import hf_name, llava_name
from llava.convert.weights import (
    EMBEDDINGS,
    VOCABULARY,
    add_tower,
    check_weights,
    read_weights,
    resize_vocabulary,
    write_weights,
)


@pytest.fixture
def config() -> LlavaConfig:
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlavaConfig(
        vision_config=CLIPVisionConfig(image_size=28, patch_size=14, **sizes),
        text_config=LlamaConfig(vocab_size=10, **sizes),
    )


@pytest.fixture
def weights(config) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    state = LlavaForConditionalGeneration(config).state_dict()
    return {llava_name(name): tensor for name, tensor in state.items()}


def test_weights_are_the_same_after_writing_in_many_files_and_reading(tmp_path, weights):
    write_weights({hf_name(name): tensor for name, tensor in weights.items()}, tmp_path, "1KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    read = read_weights(tmp_path)
    assert set(read) == set(weights)
    assert all(torch.equal(read[name], weights[name]) for name in weights)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_files_of_every_age_are_read(tmp_path, weights, zipped):
    stored = {name: torch.nn.Parameter(tensor) for name, tensor in weights.items()}
    torch.save(stored, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    read = read_weights(tmp_path)
    assert all(torch.equal(read[name], weights[name]) for name in weights)


def test_new_rows_are_never_the_likeliest_and_old_ones_stay(weights):
    wider = resize_vocabulary(weights, 16)
    logits = torch.randn(500, 8, generator=torch.Generator().manual_seed(1)) @ wider["lm_head.weight"].T
    assert logits.argmax(dim=-1).max() < 10
    for name in VOCABULARY:
        assert wider[name].shape == (16, 8)
        assert torch.equal(resize_vocabulary(wider, 10)[name], weights[name])


def test_new_rows_keep_the_dtype(weights):
    half = {name: tensor.half() for name, tensor in weights.items()}
    assert resize_vocabulary(half, 16)[EMBEDDINGS].dtype == torch.float16


def test_a_missing_weight_is_named(weights, config, tmp_path):
    del weights["model.mm_projector.2.bias"]
    with pytest.raises(ValueError, match=r"lacks weights: model\.mm_projector\.2\.bias"):
        check_weights(weights, config, tmp_path)


def test_a_weight_of_another_shape_is_named(weights, config, tmp_path):
    weights["model.mm_projector.0.weight"] = torch.zeros(8, 9)
    with pytest.raises(ValueError, match=r"mm_projector\.0\.weight is \(8, 9\), by its config \(8, 8\)"):
        check_weights(weights, config, tmp_path)


def test_the_vocabulary_may_have_any_number_of_rows(weights, config, tmp_path):
    assert check_weights(resize_vocabulary(weights, 16), config, tmp_path)[EMBEDDINGS].shape == (16, 8)


def test_weights_that_nothing_reads_are_left_out_and_told(weights, config, tmp_path, caplog):
    checked = check_weights(weights | {"model.odd": torch.zeros(1)}, config, tmp_path)
    assert set(checked) == set(weights)
    assert "model.odd" in caplog.text


def test_a_checkpoint_keeps_its_own_tower(weights):
    def clip():
        raise AssertionError("the tower is there: CLIP is not to be looked for")

    assert add_tower(weights, clip) is weights
