"""LoRAs: every weight of them is in the model afterwards, or loading says which is not and why."""

import json
import shutil

import pytest
import torch
from packaging.version import Version
from safetensors.torch import load_file, save_file

from llava.model.builder import load_pretrained_model

peft = pytest.importorskip("peft", reason="LoRAs need peft, the extra `lora`")

QUERY = "model.layers.0.self_attn.q_proj"
TOWER = "model.vision_tower.vision_tower.encoder.layers.1.mlp.fc1"
OTHERS = {  # where else an adapter may sit
    "tower": ["fc1", "out_proj"],
    "projector": [f"model.mm_projector.{index}" for index in (0, 2)],
    "vocabulary": ["embed_tokens", "lm_head"],
    "everything": "all-linear",
}

saves_biases = pytest.mark.skipif(
    Version(peft.__version__) < Version("0.21"), reason='peft before 0.21 saves no biases of "lora_only"'
)


@pytest.fixture(scope="module")
def loaded(checkpoint):
    """The plain model and its weights; tests that wrap it load one of their own."""
    return load_pretrained_model(str(checkpoint), None, "llava-tiny", device="cpu", dtype="float32")[1]


@pytest.fixture(scope="module")
def train(checkpoint, tmp_path_factory):
    """Return a function that trains, by chance, and saves a LoRA: ``(folder, weights of the merged model)``."""

    def train(**options):
        torch.manual_seed(2)
        model = load_pretrained_model(str(checkpoint), None, "llava-tiny", device="cpu", dtype="float32")[1]
        options = {"r": 2, "lora_alpha": 8, "target_modules": ["q_proj"], "init_lora_weights": False, **options}
        wrapped = peft.get_peft_model(model, peft.LoraConfig(**options))
        with torch.no_grad():
            for parameter in wrapped.parameters():
                if parameter.requires_grad:  # magnitudes, biases and whole modules too
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        folder = tmp_path_factory.mktemp("lora") / "llava-lora"
        wrapped.save_pretrained(folder)
        shutil.copy(checkpoint / "config.json", folder)
        torch.save({}, folder / "non_lora_trainables.bin")
        return folder, wrapped.merge_and_unload().state_dict()

    return train


@pytest.fixture(scope="module")
def queries(train):
    """A plain LoRA on the queries, and the weights of the merged model."""
    return train()


def load_on(folder, base, **options):
    options = {"device": "cpu", "dtype": "float32", **options}
    return load_pretrained_model(str(folder), str(base), folder.name, **options)[1]


def edit(folder, name="adapter_config.json", **changes):
    file = folder / name
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def edit_weights(folder, change):
    file = folder / "adapter_model.safetensors"
    save_file(change(load_file(file)), file)


@pytest.fixture
def lora(queries, tmp_path):
    """A copy of the plain LoRA to damage."""
    return shutil.copytree(queries[0], tmp_path / "llava-lora")


@pytest.mark.parametrize("where", OTHERS)
def test_every_adapted_weight_is_merged_wherever_it_is(train, checkpoint, loaded, where):
    folder, expected = train(target_modules=OTHERS[where])
    actual, before = load_on(folder, checkpoint).state_dict(), loaded.state_dict()
    for name, tensor in expected.items():
        torch.testing.assert_close(actual[name], tensor, msg=name)
    touched = [name for name in before if not torch.equal(before[name], actual[name])]
    assert any(name.startswith("model.vision_tower.") for name in touched) == (where in ("tower", "everything"))
    assert any(name.startswith("model.mm_projector.") for name in touched) == (where in ("projector", "everything"))


def test_the_towers_old_names_and_a_pruners_text_side_do_not_stand_in_the_way(train, checkpoint):
    folder, expected = train(target_modules=["fc1"])
    edit_weights(
        folder, lambda lora: {k.replace("tower.encoder", "tower.vision_model.encoder"): v for k, v in lora.items()}
    )
    model = load_on(folder, checkpoint, pruner="cdpruner", visual_token_num=4)
    torch.testing.assert_close(model.state_dict()[f"{TOWER}.weight"], expected[f"{TOWER}.weight"])


@pytest.mark.parametrize(
    "options",
    [
        {"use_dora": True},
        {"use_rslora": True},
        {"rank_pattern": {"layers.0.self_attn.q_proj": 3}, "alpha_pattern": {"layers.1.self_attn.q_proj": 1}},
        {"lora_bias": True, "target_modules": ["fc1"]},
        {"bias": "all", "target_modules": ["fc1"]},
        pytest.param({"bias": "lora_only", "target_modules": ["fc1"]}, marks=saves_biases),
        {"fan_in_fan_out": True},
        {"modules_to_save": ["lm_head", "embed_tokens"]},
        {"modules_to_save": ["mm_projector"]},
        {"layers_to_transform": [1], "layers_pattern": "layers"},
        {"exclude_modules": ["v_proj"], "target_modules": ["q_proj", "v_proj"]},
        {"init_lora_weights": "pissa"},
    ],
    ids=lambda options: "-".join(options),
)
@pytest.mark.filterwarnings("ignore::UserWarning:peft")
def test_what_pefts_settings_ask_for_is_done_as_peft_does_it(train, checkpoint, options):
    folder, expected = train(**options)
    actual = load_on(folder, checkpoint).state_dict()
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(actual[name], tensor, msg=name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type 'IA3' is not LORA"),
        ({"peft_type": None}, "peft_type None is not LORA"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "layer_replication"),
        ({"trainable_token_indices": [3]}, "trainable_token_indices"),
        ({"of_a_later_peft": True}, "does not know its of_a_later_peft"),
        ({"target_modules": None}, "target_modules is missing"),
        ({"target_modules": ["q_proj", "v_proj"]}, "v_proj, for which there are no weights"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save has lm_head, for which weights are missing"),
        ({"use_dora": True}, "lacks weights that adapter_config.json asks for: .*magnitude"),
        ({"r": 4}, "does not fit its config: .*lora_A"),
        ({"r": 0}, "r"),
    ],
)
def test_settings_that_cannot_be_met_are_named(lora, checkpoint, changes, message):
    edit(lora, **changes)
    with pytest.raises(ValueError, match=message) as caught:
        load_on(lora, checkpoint)
    assert "adapter_config.json" in str(caught.value) or "adapter_model.safetensors" in str(caught.value)


def moved(stem):
    return lambda lora: {name.replace(QUERY, stem): tensor for name, tensor in lora.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (moved("model.layers.7.self_attn.q_proj"), "modules that the model does not have: .*layers.7"),
        (moved("transformer.h.0.attn.c_attn"), "modules that the model does not have: .*c_attn"),
        (
            lambda lora: {k: v for k, v in lora.items() if "layers.0" not in k or "lora_A" in k},
            "lacks .*layers.0.*lora_B",
        ),
        (
            lambda lora: lora | {"base_model.model.model.vision_resampler.weight": torch.ones(1)},
            "not have: .*resampler",
        ),
        (lambda lora: lora | {f"base_model.model.{QUERY}.lora_E": torch.ones(1)}, "not have: .*lora_E"),
        (lambda lora: lora | {f"base_model.model.{QUERY}.lora_magnitude_vector": torch.ones(32)}, "does not ask for"),
        (
            lambda lora: {k: torch.cat([v, v], dim=int("lora_A" in k)) for k, v in lora.items()},
            "does not fit its config",
        ),
        (lambda lora: {k: v * float("nan") for k, v in lora.items()}, "NaN"),
        (lambda lora: {"base_model.model.lm_head.weight": torch.ones(7, 32)}, "no weights of a LoRA"),
        (lambda lora: lora | {"base_model.model.lm_head.weight": torch.ones(7, 32)}, "does not fit .*lm_head"),
        (lambda lora: {}, "no weights of a LoRA"),
    ],
)
def test_weights_without_a_place_or_of_another_base_are_named(lora, checkpoint, change, message):
    edit_weights(lora, change)
    with pytest.raises(ValueError, match=message) as caught:
        load_on(lora, checkpoint)
    assert "adapter_model.safetensors" in str(caught.value)


def test_files_that_are_missing_or_damaged_are_named(lora, checkpoint):
    weights, settings = lora / "adapter_model.safetensors", lora / "adapter_config.json"
    whole = weights.read_bytes()
    for content, message in (
        (whole[: len(whole) // 2], "adapter_model.safetensors is damaged"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "adapter_model.safetensors .*git lfs pull"),
    ):
        weights.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            load_on(lora, checkpoint)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match="adapter_model.safetensors nor adapter_model.bin"):
        load_on(lora, checkpoint)
    weights.write_bytes(whole)
    for content in ("{", "[]", "\udcff"):
        settings.write_text(content, errors="surrogateescape")
        with pytest.raises(ValueError, match="adapter_config.json"):
            load_on(lora, checkpoint)
    settings.unlink()
    with pytest.raises(FileNotFoundError, match="adapter_config.json is missing"):
        load_on(lora, checkpoint)


def test_weights_in_a_bin_file_are_read_alike(lora, queries, checkpoint):
    folder, expected = lora, queries[1]
    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    torch.testing.assert_close(load_on(folder, checkpoint).state_dict()[f"{QUERY}.weight"], expected[f"{QUERY}.weight"])


def test_a_missing_peft_names_the_extra(lora, checkpoint, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(ImportError, match=r"\.\[lora\]"):
        load_on(lora, checkpoint)


def test_a_base_of_another_name_is_told(lora, checkpoint, caplog):
    edit(lora, base_model_name_or_path="lmsys/vicuna-13b-v1.5")
    load_on(lora, checkpoint)
    assert any("vicuna-13b-v1.5" in message and str(checkpoint) in message for message in caplog.messages)
    caplog.clear()
    edit(lora, base_model_name_or_path=f"elsewhere/{checkpoint.name}/")
    load_on(lora, checkpoint)
    assert not [message for message in caplog.messages if "trained on" in message]


def test_words_that_are_tied_are_not_adapted_on_one_side(lora, checkpoint, tmp_path):
    base = shutil.copytree(checkpoint, tmp_path / "tied")
    for folder in (base, lora):
        edit(folder, "config.json", tie_word_embeddings=True)
    words = {name: each for name, each in load_file(base / "model.safetensors").items() if name != "lm_head.weight"}
    save_file(words, base / "model.safetensors", metadata={"format": "pt"})
    edit(lora, target_modules=["lm_head"])
    edit_weights(
        lora,
        lambda _: {
            f"base_model.model.lm_head.lora_{k}.weight": torch.ones(*s)
            for k, s in {"A": (2, 32), "B": (900, 2)}.items()
        },
    )
    with pytest.raises(ValueError, match="lm_head alone.*tie_word_embeddings"):
        load_on(lora, base)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_half_precision_weight_is_rounded_once(lora, checkpoint, loaded, dtype):
    folder = lora
    lora = load_file(folder / "adapter_model.safetensors")
    part = {name: lora[f"base_model.model.{QUERY}.lora_{name}.weight"] for name in "AB"}
    kind = getattr(torch, dtype)
    weight = loaded.state_dict()[f"{QUERY}.weight"].to(kind)
    expected = weight + (4 * part["B"] @ part["A"]).to(kind)
    assert torch.equal(load_on(folder, checkpoint, dtype=dtype).state_dict()[f"{QUERY}.weight"], expected)
