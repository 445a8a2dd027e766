"""Projectors and LoRAs on a language model: both whole, of one kind, and every weight of them in its place."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from llava.model.adapter import plain_name
from llava.model.builder import load_pretrained_model

from .test_config_checks import edit, edit_weights


def load_on(folder, base, **options):
    options = {"device": "cpu", "dtype": "float32", **options}
    return load_pretrained_model(str(folder), base and str(base), folder.name, **options)


@pytest.fixture
def weights(checkpoint):
    return load_file(checkpoint / "model.safetensors")


@pytest.fixture
def base(checkpoint, tmp_path):
    """A language model without a projector."""
    folder = shutil.copytree(checkpoint, tmp_path / "vicuna-tiny")
    edit_weights(folder, lambda weights: {k: v for k, v in weights.items() if "mm_projector" not in k})
    edit(folder, model_type="llama", architectures=["LlamaForCausalLM"])
    return folder


@pytest.fixture
def projector(checkpoint, weights, tmp_path):
    """A folder with nothing but a projector."""
    folder = tmp_path / "llava-pretrain"
    folder.mkdir()
    shutil.copy(checkpoint / "config.json", folder)
    torch.save({k: v * 2 for k, v in weights.items() if "mm_projector" in k}, folder / "mm_projector.bin")
    return folder


@pytest.fixture
def lora(projector, tmp_path):
    """A folder of a LoRA that changes nothing, and its projector."""
    pytest.importorskip("peft")
    folder = projector.rename(tmp_path / "llava-lora")
    (folder / "mm_projector.bin").rename(folder / "non_lora_trainables.bin")
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    halves = {
        f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_{half}.weight": torch.zeros(shape)
        for layer in range(2)
        for half, shape in {"A": (2, 32), "B": (32, 2)}.items()
    }
    save_file(halves, folder / "adapter_model.safetensors")
    return folder


def change(folder, name, function):
    torch.save(function(torch.load(folder / name)), folder / name)


def test_without_a_base_the_error_says_what_needs_one(projector):
    with pytest.raises(ValueError, match=r"llava-pretrain is a projector .*model_base \(--model-base\)"):
        load_on(projector, None)


@pytest.mark.parametrize("left", ["adapter_config.json", "adapter_model.safetensors", "non_lora_trainables.bin"])
def test_what_is_left_of_a_lora_needs_a_base_and_the_rest(lora, base, left):
    with pytest.raises(ValueError, match=r"llava-lora is a LoRA.*model_base \(--model-base\)"):
        load_on(lora, None)
    for file in lora.iterdir():
        if file.name not in (left, "config.json"):
            file.unlink()
    with pytest.raises(ValueError, match="is a LoRA"):
        load_on(lora, None)
    with pytest.raises(FileNotFoundError, match="adapter_config.json is missing|lacks the adapter's weights"):
        load_on(lora, base)


def test_a_base_beside_a_whole_checkpoint_is_refused(checkpoint, base, tmp_path):
    with pytest.raises(FileNotFoundError, match="is a whole checkpoint, to which model_base .*vicuna-tiny"):
        load_on(checkpoint, base)
    (tmp_path / "empty").mkdir()
    shutil.copy(checkpoint / "config.json", tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="neither a LoRA nor a projector"):
        load_on(tmp_path / "empty", base)


@pytest.mark.parametrize("prefix", ["", "base_model.model.", "base_model.model.model.", "module.", "base_model."])
def test_weights_beside_a_lora_are_matched_whatever_wrapped_them(lora, base, weights, prefix):
    change(lora, "non_lora_trainables.bin", lambda extra: {f"{prefix}{name}": each for name, each in extra.items()})
    model = load_on(lora, base)[1]
    name = "model.mm_projector.0.weight"
    assert torch.equal(model.get_parameter(name), weights[name] * 2)


def test_wrapped_names_are_found_and_foreign_ones_are_not():
    known = {"model.mm_projector.0.weight": 1, "lm_head.weight": 2, "model.vision_tower.vision_tower.encoder.x": 3}
    for name, plain in {
        "base_model.model.lm_head.weight": "lm_head.weight",
        "base_model.model.lm_head.modules_to_save.default.weight": "lm_head.weight",
        "base_model.model.model.mm_projector.0.base_layer.weight": "model.mm_projector.0.weight",
        "mm_projector.0.weight": "model.mm_projector.0.weight",
        "model.vision_tower.vision_tower.vision_model.encoder.x": "model.vision_tower.vision_tower.encoder.x",
        "transformer.lm_head.weight": None,
        "model": None,
        "": None,
    }.items():
        assert plain_name(name, known) == plain


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda extra: extra | {"model.mm_projector.9.weight": torch.ones(2)}, "does not have: model.mm_projector.9"),
        (lambda extra: extra | {"model.vision_resampler.x": torch.ones(2)}, "does not have: model.vision_resampler"),
        (
            lambda extra: {k: v for k, v in extra.items() if "0.bias" not in k},
            "lacks weights: model.mm_projector.0.bias",
        ),
        (lambda extra: {k: v[:5] for k, v in extra.items()}, "does not fit its config: .*model.mm_projector.0"),
        (lambda extra: {**extra, "mm_projector.0.bias": torch.ones(32)}, "model.mm_projector.0.bias twice"),
        (lambda extra: {k: v.to(torch.int8) for k, v in extra.items()}, "whole numbers.*mm_projector.0.bias"),
        (lambda extra: [1, 2], "something else than tensors"),
        (lambda extra: {"state_dict": extra}, "something else than tensors"),
        (lambda extra: extra | {"lm_head.weight": torch.ones(900, 31)}, "does not fit .*lm_head"),
        (lambda extra: extra | {"model.embed_tokens.weight": torch.ones(800, 32)}, "does not fit .*embed_tokens"),
    ],
)
@pytest.mark.parametrize("of_a_lora", [False, True])
def test_a_file_of_weights_is_taken_whole_or_refused_by_name(request, base, checkpoint, function, message, of_a_lora):
    folder = request.getfixturevalue("lora" if of_a_lora else "projector")
    name = "non_lora_trainables.bin" if of_a_lora else "mm_projector.bin"
    change(folder, name, function)
    for language_model in (base, checkpoint):  # one that would lend its own projector, too
        with pytest.raises(ValueError, match=message) as caught:
            load_on(folder, language_model)
        assert name in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK", b"\x80\x02garbage", b"version https://git-lfs.github.com/spec/v1"])
def test_a_damaged_file_of_weights_is_named(lora, base, content):
    (lora / "non_lora_trainables.bin").write_bytes(content)
    with pytest.raises(ValueError, match="non_lora_trainables.bin is damaged"):
        load_on(lora, base)
    (lora / "non_lora_trainables.bin").unlink()
    with pytest.raises(FileNotFoundError, match="non_lora_trainables.bin is missing"):
        load_on(lora, base)


def test_a_projector_that_stayed_the_bases_need_not_come_again(lora, checkpoint, weights):
    change(lora, "non_lora_trainables.bin", lambda extra: {})
    name = "model.mm_projector.0.weight"
    assert torch.equal(load_on(lora, checkpoint)[1].get_parameter(name), weights[name])


def test_the_tower_that_a_base_holds_is_not_replaced_by_the_one_beside_it(load, lora, checkpoint, tmp_path):
    _, model, _, _ = load(checkpoint)
    tower = model.get_vision_tower().vision_tower
    name = "encoder.layers.0.mlp.fc1.weight"
    with torch.no_grad():
        tower.get_parameter(name).mul_(2)
    model.save_pretrained(tmp_path / "tuned")
    shutil.copy(checkpoint / "tokenizer.model", tmp_path / "tuned")
    tuned = load_on(lora, tmp_path / "tuned")[1].get_vision_tower().vision_tower
    assert torch.equal(tuned.get_parameter(name), tower.get_parameter(name))


def test_a_tower_that_was_trained_has_to_be_there(lora, base):
    edit(lora, unfreeze_mm_vision_tower=True)
    with pytest.raises(ValueError, match="llava-lora lacks weights: .*unfreeze_mm_vision_tower"):
        load_on(lora, base)


def test_a_relative_tower_is_found_beside_either(lora, base, clip_folder, tmp_path):
    shutil.copytree(clip_folder, base / "eyes")
    edit(lora, mm_vision_tower="eyes")
    assert load_on(lora, base)[1].get_vision_tower().vision_tower_name == str(base / "eyes")
    shutil.copytree(clip_folder, lora / "eyes")
    assert load_on(lora, base)[1].get_vision_tower().vision_tower_name == str(lora / "eyes")


@pytest.mark.parametrize("of_a_lora", [False, True])
def test_rows_of_added_tokens_come_with_what_was_trained(request, base, weights, of_a_lora):
    folder = request.getfixturevalue("lora" if of_a_lora else "projector")
    name = "non_lora_trainables.bin" if of_a_lora else "mm_projector.bin"
    edit(folder, vocab_size=902, mm_use_im_start_end=True)
    table = torch.cat([weights["model.embed_tokens.weight"], torch.randn(2, 32)])
    change(folder, name, lambda extra: extra | {"model.embed_tokens.weight": table})
    tokenizer, model, _, _ = load_on(folder, base)
    assert (len(tokenizer), model.config.vocab_size) == (902, 902)
    assert torch.equal(model.get_input_embeddings().weight, table)
    head = weights["lm_head.weight"]
    assert torch.equal(model.lm_head.weight[:900], head)
    torch.testing.assert_close(model.lm_head.weight[901], head.mean(dim=0))


def test_rows_that_were_not_trained_are_the_mean_that_training_began_with(lora, base, weights):
    edit(lora, vocab_size=902, mm_use_im_start_end=True)
    model = load_on(lora, base)[1]
    torch.testing.assert_close(
        model.get_input_embeddings().weight[901], weights["model.embed_tokens.weight"].mean(dim=0)
    )


def test_a_vocabulary_that_nothing_fills_is_refused(lora, base):
    edit(lora, vocab_size=1000)
    with pytest.raises(ValueError, match="vocab_size 1000, .*vicuna-tiny 900"):
        load_on(lora, base)


def test_a_base_with_a_padded_vocabulary_keeps_it(projector, base):
    def pad(weights):
        return {k: torch.cat([v, v[:28]]) if len(v) == 900 else v for k, v in weights.items()}

    edit_weights(base, pad)
    assert load_on(projector, base)[1].get_input_embeddings().num_embeddings == 928


def test_the_tokenizer_that_knows_the_added_tokens_is_taken(lora, base, weights):
    for file in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copy(base / file, lora)
    (lora / "added_tokens.json").write_text(json.dumps({"<shape>": 900}))
    tables = {
        name: torch.cat([weights[name], torch.ones(1, 32)]) for name in ("model.embed_tokens.weight", "lm_head.weight")
    }
    change(lora, "non_lora_trainables.bin", lambda extra: extra | tables)
    tokenizer, model, _, _ = load_on(lora, base)
    assert tokenizer.convert_tokens_to_ids("<shape>") == 900
    assert torch.equal(model.get_input_embeddings().weight[900], torch.ones(32))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mistral"}, "model_type 'mistral'.*needs one of llama"),
        ({"model_type": "gpt_neox"}, "model_type 'gpt_neox'"),
        ({"num_attention_heads": 8, "head_dim": 8}, "trained on: .*num_attention_heads 8 there, 4 here"),
        ({"rope_theta": 500000.0}, "trained on: .*rope"),
        ({"hidden_act": "gelu"}, "trained on: .*hidden_act 'gelu' there"),
    ],
)
def test_a_base_of_another_kind_is_refused_where_shapes_do_not_tell(lora, base, changes, message):
    edit(base, **changes)
    file = base / "config.json"
    config = json.loads(file.read_text())
    if "rope_theta" in changes:
        config.pop("rope_parameters", None)
    file.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        load_on(lora, base)


def test_a_base_of_other_shapes_is_refused(lora, base):
    edit_weights(base, lambda weights: {k: v[:16] if "q_proj" in k else v for k, v in weights.items()})
    with pytest.raises(ValueError, match=r"vicuna-tiny does not fit its config: .*q_proj.weight is \(16, 32\)"):
        load_on(lora, base)


def test_a_base_without_words_or_weights_is_named(lora, base):
    edit_weights(base, lambda weights: {k: v for k, v in weights.items() if "embed_tokens" not in k})
    with pytest.raises(ValueError, match="vicuna-tiny lacks weights: model.embed_tokens.weight"):
        load_on(lora, base)
    (base / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="vicuna-tiny holds no weights"):
        load_on(lora, base)


def test_a_quantised_training_does_not_make_the_base_a_quantised_one(lora, base, caplog):
    edit(lora, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    model = load_on(lora, base)[1]
    assert model.get_parameter("model.layers.0.self_attn.q_proj.weight").dtype == torch.float32
    assert any("load_4bit" in message for message in caplog.messages)
