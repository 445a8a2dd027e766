"""Loading: what is read from the checkpoint, what is refused, and every way to place it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaTokenizer

from llava.model import LlavaConfig, LlavaLlamaForCausalLM, LlavaMistralForCausalLM
from llava.model.builder import load_pretrained_model, load_tokenizer
from llava.pruners import PRUNERS

from .conftest import E2E, QUESTIONS, generate, question_prompts


@pytest.fixture
def broken(checkpoint, tmp_path):
    """A copy of the checkpoint to damage."""
    return shutil.copytree(checkpoint, tmp_path / "llava-broken")


def edit_config(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def drop_weights(folder, start: str):
    file = folder / "model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if not k.startswith(start)}, file, metadata={"format": "pt"})


@pytest.mark.parametrize("name", ["llava-v1.5-tiny", "llava-v1.6-vicuna-tiny"])
def test_checkpoints_in_the_real_format_load_without_missing_or_unexpected_weights(load, name, caplog):
    _, model, processor, context_length = load(E2E / "checkpoints" / name)
    assert isinstance(model, LlavaLlamaForCausalLM)
    assert not [message for message in caplog.messages if "weights that nothing reads" in message]
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert processor.crop_size["height"] == 336
    assert context_length == (2048 if "v1.5" in name else 4096)


def test_the_tower_in_the_checkpoint_wins_over_the_one_beside_it(load, checkpoint, clip_folder, tmp_path):
    name = "encoder.layers.0.mlp.fc1.weight"
    beside = load_file(clip_folder / "model.safetensors")[f"vision_model.{name}"]
    _, model, _, _ = load(checkpoint)
    tower = model.get_vision_tower().vision_tower
    assert torch.equal(tower.get_parameter(name), beside)
    with torch.no_grad():
        tower.get_parameter(name).mul_(2)
    model.save_pretrained(tmp_path / "tuned")
    for file in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copy(checkpoint / file, tmp_path / "tuned")
    _, tuned, _, _ = load(tmp_path / "tuned", pruner="cdpruner", visual_token_num=4)
    assert torch.equal(tuned.get_vision_tower().vision_tower.get_parameter(name), beside * 2)


def test_what_is_saved_loads_again_with_the_same_weights(load, checkpoint, tmp_path):
    _, model, _, _ = load(checkpoint, pruner="cdpruner", visual_token_num=4)
    model.save_pretrained(tmp_path / "again")
    for file in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copy(checkpoint / file, tmp_path / "again")
    _, again, _, _ = load(tmp_path / "again")
    before, after = model.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_fixed_layout_is_not_saved_and_a_relative_tower_is_found_from_anywhere(
    load, make_checkpoint, clip_folder, tmp_path
):
    stock = make_checkpoint(anyres=True, name="stock")
    shutil.copytree(clip_folder, stock.parent / "eyes")
    edit_config(stock, mm_vision_tower="../eyes")
    _, model, _, _ = load(stock, anyres="fixed")
    model.save_pretrained(tmp_path / "elsewhere" / "again")
    assert (model.config.image_grid_pinpoints, model.config.mm_patch_merge_type) == ([[64, 64]], "spatial")
    shutil.copy(stock / "tokenizer.model", tmp_path / "elsewhere" / "again")
    _, again, _, _ = load(tmp_path / "elsewhere" / "again")
    assert again.config.image_grid_pinpoints == json.loads((stock / "config.json").read_text())["image_grid_pinpoints"]
    assert again.config.mm_patch_merge_type == "spatial_unpad"
    assert torch.equal(again.get_model().image_newline, model.get_model().image_newline)


@pytest.fixture
def broken_tower(broken, clip_folder):
    """The folder of a tower to damage, and the checkpoint that points to it."""
    folder = shutil.copytree(clip_folder, broken.parent / "eyes")
    edit_config(broken, mm_vision_tower="../eyes")
    return folder, broken


@pytest.mark.parametrize(
    ("start", "pruner"), [("vision_model.encoder.layers.0.mlp.", None), ("text_projection.", "cdpruner")]
)
def test_weights_missing_from_the_tower_are_named_never_random(load, broken_tower, start, pruner):
    tower, checkpoint = broken_tower
    drop_weights(tower, start)
    options = {"pruner": pruner, "visual_token_num": 4} if pruner else {}
    with pytest.raises(ValueError, match="eyes lacks weights"):
        load(checkpoint, **options)


def test_a_tower_without_weights_or_cut_short_is_named(load, broken_tower):
    tower, checkpoint = broken_tower
    file = tower / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match="eyes/model.safetensors is damaged"):
        load(checkpoint)
    file.unlink()
    with pytest.raises(FileNotFoundError, match="eyes holds no weights"):
        load(checkpoint)


@pytest.mark.parametrize("content", ["{", "{}", "[]", '{"weight_map": 3}'])
def test_a_broken_index_is_named(load, sharded, content):
    (sharded / "pytorch_model.bin.index.json").write_text(content)
    with pytest.raises(ValueError, match="pytorch_model.bin.index.json is no index of weights"):
        load(sharded)


@pytest.mark.parametrize(
    ("model_type", "architectures", "expected"),
    [
        ("llava", ["LlavaLlamaForCausalLM"], LlavaLlamaForCausalLM),
        ("llava", None, LlavaLlamaForCausalLM),
        ("llava_llama", [], LlavaLlamaForCausalLM),
        ("llava_mistral", ["LlavaMistralForCausalLM"], LlavaMistralForCausalLM),
        ("llava_mistral", None, LlavaMistralForCausalLM),
        ("llava", ["LlamaForCausalLM"], LlavaLlamaForCausalLM),  # what LoRAs and projectors say
        ("llava_mistral", ["MistralForCausalLM"], LlavaMistralForCausalLM),
    ],
)
def test_the_config_decides_the_class_not_the_folder(load, broken, model_type, architectures, expected):
    edit_config(broken, model_type=model_type, architectures=architectures)
    folder = broken.rename(broken.parent / "some-mpt-prompt-lora")
    assert type(load(folder)[1]) is expected


def test_a_checkpoint_of_another_architecture_is_refused(load, broken):
    edit_config(broken, model_type="llama", architectures=["LlamaForCausalLM"])
    with pytest.raises(ValueError, match="config.json has architectures .*LlamaForCausalLM.*llava_mistral"):
        load(broken)


def test_a_checkpoint_of_transformers_own_llava_is_told_where_it_belongs(load, broken):
    config = {"model_type": "llava", "architectures": ["LlavaForConditionalGeneration"]}
    (broken / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"llava\.pruning\.prune .*convert_llava_to_hf\.py --to llava"):
        load(broken)


def test_a_name_that_the_hub_does_not_give_is_named(load, monkeypatch):
    def unreachable(name):
        raise ConnectionError("no route")

    monkeypatch.setattr("llava.model.checkpoint.snapshot_download", unreachable)
    with pytest.raises(FileNotFoundError, match="'checkpoints/nothing': no such folder.*hub.*no route"):
        load(Path("checkpoints/nothing"))


def test_a_relative_tower_path_starts_at_the_checkpoint(load, broken, clip_folder):
    shutil.copytree(clip_folder, broken.parent / "eyes")
    edit_config(broken, mm_vision_tower="../eyes")
    assert load(broken)[1].get_vision_tower().vision_tower_name == str((broken.parent / "eyes").resolve())


def test_a_tower_that_is_nowhere_names_the_path(load, broken):
    edit_config(broken, mm_vision_tower="../nowhere")
    with pytest.raises(FileNotFoundError, match="mm_vision_tower '../nowhere'"):
        load(broken)


def test_a_folder_without_weights_says_which_files_it_looked_for(load, broken):
    (broken / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="holds no weights: .*pytorch_model.bin"):
        load(broken)


def test_a_folder_that_is_not_there_is_named(load, tmp_path):
    with pytest.raises(FileNotFoundError, match="missing-checkpoint"):
        load(tmp_path / "missing-checkpoint")


def test_a_folder_without_a_config_is_no_checkpoint(load, broken):
    (broken / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="config.json is missing"):
        load(broken)


@pytest.fixture
def sharded(tmp_path):
    """A copy of the two-shard checkpoint to damage."""
    shutil.copytree(E2E / "checkpoints" / "clip", tmp_path / "clip")
    return shutil.copytree(E2E / "checkpoints" / "llava-v1.5-tiny", tmp_path / "llava-v1.5-tiny")


def test_a_missing_shard_is_named(load, sharded):
    (sharded / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(FileNotFoundError, match="pytorch_model-00002-of-00002.bin"):
        load(sharded)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_truncated_shard_is_named(load, sharded, share):
    file = sharded / "pytorch_model-00001-of-00002.bin"
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    with pytest.raises(ValueError, match="pytorch_model-00001-of-00002.bin is damaged or cut short"):
        load(sharded)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_truncated_safetensors_are_named(load, broken, share):
    file = broken / "model.safetensors"
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    with pytest.raises(ValueError, match="model.safetensors is damaged or cut short"):
        load(broken)


@pytest.mark.parametrize("start", ["model.mm_projector.", "model.layers.1.", "lm_head."])
def test_missing_weights_are_named_never_random(load, broken, start):
    drop_weights(broken, start)
    with pytest.raises(ValueError, match=f"lacks weights: {start}"):
        load(broken)


def test_a_missing_newline_is_named(load, anyres_checkpoint, tmp_path):
    folder = shutil.copytree(anyres_checkpoint, tmp_path / "llava-broken")
    drop_weights(folder, "model.image_newline")
    with pytest.raises(ValueError, match="lacks weights: model.image_newline"):
        load(folder)


def test_a_newline_that_is_in_no_checkpoint_starts_small_and_finite(make_checkpoint):
    plain = make_checkpoint(name="flat")
    config = LlavaConfig.from_pretrained(plain)
    config.mm_patch_merge_type = "spatial_unpad"
    for model in (LlavaLlamaForCausalLM(config), LlavaLlamaForCausalLM.from_pretrained(plain, config=config)):
        newline = model.get_model().image_newline
        assert newline.isfinite().all() and 0 < newline.norm() < 3


def test_an_option_that_nobody_reads_lists_the_valid_ones(load, checkpoint):
    with pytest.raises(TypeError, match="multimodal.*budget_scope.*important_ratio.*vision_dtype"):
        load(checkpoint, multimodal=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pruner": "best"}, "cdpruner, divprune, vispruner, mfpruner"),
        ({"visual_token_num": -1}, "visual_token_num"),
        ({"visual_token_num": 4, "keep_ratio": 0.5}, "exactly one"),
        ({"visual_token_num": 4, "important_ratio": 1.5}, "important_ratio"),
        ({"pruner": "none", "visual_token_num": 4}, "visual_token_num"),
        ({"anyres": "672"}, "native, fixed"),
        ({"budget_scope": "batch"}, "tile, image"),
        ({"positions": "gaps"}, "compact, original"),
        ({"text_chunking": "truncate"}, "release, bos_eos"),
        ({"dtype": "float8"}, "float16"),
    ],
)
def test_a_wrong_value_names_the_option_and_the_valid_values(load, checkpoint, options, message):
    with pytest.raises(ValueError, match=message):
        load(checkpoint, **options)


def test_an_option_of_another_pruner_is_a_type_error(load, checkpoint):
    with pytest.raises(TypeError, match="divprune has no option important_ratio"):
        load(checkpoint, pruner="divprune", visual_token_num=4, important_ratio=0.5)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, None),
        ({"pruner": "none"}, None),
        ({"visual_token_num": 4}, PRUNERS["cdpruner"](4)),
        ({"visual_token_num": 4, "important_ratio": 0.75}, PRUNERS["vispruner"](4, important_ratio=0.75)),
        ({"pruner": "divprune", "keep_ratio": 0.5}, PRUNERS["divprune"](keep_ratio=0.5)),
        ({"pruner": PRUNERS["random"](4, seed=7)}, PRUNERS["random"](4, seed=7)),
    ],
)
def test_the_pruner_that_the_arguments_mean(load, checkpoint, options, expected):
    assert load(checkpoint, **options)[1].pruner == expected


def test_without_a_gpu_cuda_means_the_cpu_in_float32_with_a_warning(checkpoint, monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    _, model, _, _ = load_pretrained_model(str(checkpoint), None, "llava-tiny", device="cuda")
    assert model.device == torch.device("cpu") and model.dtype == torch.float32
    assert any("no CUDA device" in message for message in caplog.messages)


@pytest.mark.parametrize("device_map", ["auto", None, "cpu", {"": "cpu"}])
def test_every_device_map_puts_tower_and_model_in_one_place(load, checkpoint, device_map):
    _, model, _, _ = load(checkpoint, device_map=device_map, dtype=None)
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_device_map_that_names_the_cpu_asks_for_no_gpu(checkpoint, monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    load_pretrained_model(str(checkpoint), None, "llava-tiny", device_map="cpu")
    assert not [message for message in caplog.messages if "no CUDA device" in message]


@pytest.mark.parametrize("option", ["dtype", "torch_dtype"])
def test_dtype_is_a_name_or_a_dtype_and_the_tower_may_differ(load, anyres_checkpoint, option):
    for value in ("bfloat16", torch.bfloat16, "bf16"):
        options = {"dtype": None, option: value, "vision_dtype": "float32"}
        _, model, _, _ = load(anyres_checkpoint, **options)
        assert (model.dtype, model.get_vision_tower().dtype) == (torch.bfloat16, torch.float32)


def test_attention_backend_reaches_the_language_model_and_the_tower(load, checkpoint):
    for name in ("eager", "sdpa"):
        _, model, _, _ = load(checkpoint, attn_implementation=name)
        assert model.config._attn_implementation == name
        assert model.get_vision_tower().config._attn_implementation == name


def test_checkpoint_sampling_settings_do_not_leak_into_generation(load):
    _, model, _, _ = load(E2E / "checkpoints" / "llava-v1.5-tiny")
    settings = model.generation_config
    assert (settings.temperature, settings.top_p, settings.max_length) == (None, None, None)
    assert (settings.eos_token_id, settings.pad_token_id) == (2, 0)


def test_image_tokens_are_added_where_the_config_asks_for_them(load, make_checkpoint):
    folder = make_checkpoint(name="marks", vocab_size=903, mm_use_im_start_end=True, mm_use_im_patch_token=True)
    tokenizer, model, _, _ = load(folder)
    assert len(tokenizer) == 903
    assert model.get_input_embeddings().num_embeddings == 903


def test_a_padded_vocabulary_does_not_shrink(load, make_checkpoint):
    _, model, _, _ = load(make_checkpoint(vocab_size=960, name="padded"))
    assert model.get_input_embeddings().num_embeddings == 960


@pytest.fixture
def projector_only(checkpoint, tmp_path):
    """A language model and, apart from it, the projector trained on it."""
    weights = load_file(checkpoint / "model.safetensors")
    base = shutil.copytree(checkpoint, tmp_path / "vicuna-tiny")
    drop_weights(base, "model.mm_projector.")
    edit_config(base, model_type="llama", architectures=["LlamaForCausalLM"])
    folder = tmp_path / "llava-pretrain"
    folder.mkdir()
    shutil.copy(checkpoint / "config.json", folder)
    projector = {name: tensor for name, tensor in weights.items() if "mm_projector" in name}
    torch.save(projector, folder / "mm_projector.bin")
    return folder, base


def test_a_projector_on_its_base_is_the_whole_checkpoint(checkpoint, load, projector_only):
    folder, base = projector_only
    whole = load(checkpoint)[1].state_dict()
    _, model, _, _ = load_pretrained_model(str(folder), str(base), "llava-pretrain", device="cpu", dtype="float32")
    assert all(torch.equal(tensor, whole[name]) for name, tensor in model.state_dict().items())


def test_a_projector_file_without_the_projector_is_refused(projector_only):
    folder, base = projector_only
    torch.save({}, folder / "mm_projector.bin")
    with pytest.raises(ValueError, match="lacks weights: model.mm_projector"):
        load_pretrained_model(str(folder), str(base), "llava-pretrain", device="cpu")


def test_a_lora_is_merged_into_its_base(load, checkpoint, projector_only, tmp_path):
    peft = pytest.importorskip("peft")
    _, base = projector_only
    _, model, _, _ = load(checkpoint)
    projector = {
        f"base_model.model.{name}": tensor * 2 for name, tensor in model.state_dict().items() if "mm_projector" in name
    }
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    lora = tmp_path / "llava-lora"
    wrapped.save_pretrained(lora)
    model.config.save_pretrained(lora)
    torch.save(projector, lora / "non_lora_trainables.bin")
    expected = wrapped.merge_and_unload().state_dict()
    _, loaded, _, _ = load_pretrained_model(str(lora), str(base), "llava-lora", device="cpu", dtype="float32")
    actual = loaded.state_dict()
    name = "model.layers.0.self_attn.q_proj.weight"
    torch.testing.assert_close(actual[name], expected[name])
    assert not torch.equal(actual[name], load(checkpoint)[1].state_dict()[name])
    assert torch.equal(actual["model.mm_projector.0.weight"], projector["base_model.model.model.mm_projector.0.weight"])


@pytest.mark.parametrize("bits", [4, 8])
def test_quantised_models_generate(load, make_checkpoint, bits, images):
    pytest.importorskip("bitsandbytes")
    options = {f"load_{bits}bit": True, "pruner": "cdpruner", "visual_token_num": 4}
    folder = make_checkpoint(name="wide", hidden_size=64, num_key_value_heads=4)  # 4-bit blocks have 64 values
    tokenizer, model, processor, _ = load(folder, **options)
    projector = model.get_model().mm_projector[0].weight
    assert projector.dtype == torch.float32
    generate(model, tokenizer, processor, images, QUESTIONS, question_prompts(tokenizer, QUESTIONS))
    assert model.last_prune.visual_tokens == [4, 4, 4]


@pytest.mark.parametrize("model_type", ["llama", "mistral", "llava_llama", "llava_mistral"])
def test_sentencepieces_model_is_read_alike_whatever_the_config_says(tokenizer_folder, tmp_path, model_type):
    """The folder of a base model may name another architecture, and no class of its tokenizer."""
    shutil.copy(tokenizer_folder / "tokenizer.model", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    ids = load_tokenizer(tmp_path)("USER: What color is it?").input_ids
    assert (
        ids == LlamaTokenizer.from_pretrained(tokenizer_folder, add_bos_token=True)("USER: What color is it?").input_ids
    )
    assert ids[0] == 1


def test_an_answer_ends_where_the_checkpoint_says(load, checkpoint, images, tmp_path):
    """generation_config.json may name ends of an answer that config.json does not; a broken one is named."""
    folder = shutil.copytree(checkpoint, tmp_path / "llava-ends")
    tokenizer, model, processor, _ = load(folder)
    asked = model, tokenizer, processor, images[:1], QUESTIONS[:1], question_prompts(tokenizer, QUESTIONS[:1])
    (answer,) = generate(*asked).tolist()
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, answer[1]], "do_sample": True}))
    model = load(folder)[1]
    assert generate(model, *asked[1:]).tolist() == [answer[:2]] and not model.generation_config.do_sample
    (folder / "generation_config.json").write_text("{")
    with pytest.raises(ValueError, match="generation_config.json is not valid JSON"):
        load(folder)
