"""The doctor's verdict on a checkpoint is what loading it comes to, for whole ones and for every way to break one."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from llava.eval.doctor.checkpoint import diagnose_checkpoint
from llava.eval.doctor.findings import can_go_on
from llava.model.builder import load_pretrained_model
from llava.shapes import checkpoint_path

E2E = Path(__file__).parents[2] / "e2e" / "checkpoints"


def edit_config(folder, **changes):
    file = folder / "config.json"
    config = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def drop_weight(folder, name):
    index = json.loads((folder / "pytorch_model.bin.index.json").read_text())
    shard = folder / index["weight_map"][name]
    weights = torch.load(shard, weights_only=True)
    torch.save({key: value for key, value in weights.items() if key != name}, shard)


def drop_tower(folder):
    for shard in folder.glob("*.bin"):
        weights = torch.load(shard, weights_only=True)
        torch.save({name: each for name, each in weights.items() if "vision_tower" not in name}, shard)


BREAKAGES = {
    "whole": lambda folder: None,
    "no config": lambda folder: (folder / "config.json").unlink(),
    "broken config": lambda folder: (folder / "config.json").write_text("{"),
    "config not a table": lambda folder: (folder / "config.json").write_text("[1]"),
    "config not UTF-8": lambda folder: (folder / "config.json").write_bytes(b'{"a": "\xe9"}'),
    "index without a map": lambda folder: (folder / "pytorch_model.bin.index.json").write_text("{}"),
    "tower no name": lambda folder: edit_config(folder, mm_vision_tower=3),
    "not LLaVA": lambda folder: edit_config(folder, architectures=["LlamaForCausalLM"], model_type="llama"),
    "no tower named": lambda folder: edit_config(folder, mm_vision_tower=None),
    "tower elsewhere": lambda folder: edit_config(folder, mm_vision_tower="../clap"),
    "no tokenizer": lambda folder: [file.unlink() for file in folder.glob("*token*")],
    "a shard missing": lambda folder: (folder / "pytorch_model-00002-of-00002.bin").unlink(),
    "a shard cut short": lambda folder: (folder / "pytorch_model-00002-of-00002.bin").write_bytes(b"PK"),
    "no weights": lambda folder: [file.unlink() for file in folder.glob("pytorch_model*")],
    "a projector weight missing": lambda folder: drop_weight(folder, "model.mm_projector.2.weight"),
    "a layer missing": lambda folder: edit_config(folder, num_hidden_layers=3),
    "unknown projector": lambda folder: edit_config(folder, mm_projector_type="mlp"),
    "unknown layout": lambda folder: edit_config(folder, image_aspect_ratio="anyres_max_9"),
    "unknown layer": lambda folder: edit_config(folder, mm_vision_select_layer=-99),
    "a trained tower lost": lambda folder: [edit_config(folder, unfreeze_mm_vision_tower=True), drop_tower(folder)],
    "a smaller model": lambda folder: edit_config(folder, num_hidden_layers=1),
    "another vocabulary": lambda folder: edit_config(folder, vocab_size=1000),
    "quantised elsewhere": lambda folder: edit_config(folder, quantization_config={"quant_method": "gptq"}),
    "a tokenizer cut short": lambda folder: (folder / "tokenizer.model").write_bytes(b"cut"),
    "multi-scale tower": lambda folder: edit_config(folder, s2=True),
    "tower without weights": lambda folder: (folder.parent / "clip/pytorch_model.bin").unlink(),
    "tower without preprocessor": lambda folder: (folder.parent / "clip/preprocessor_config.json").unlink(),
}


@pytest.mark.parametrize("name", ["llava-v1.5-tiny", "llava-v1.6-vicuna-tiny"])
@pytest.mark.parametrize("breakage", BREAKAGES)
def test_what_the_doctor_passes_loads_and_what_it_does_not_fails(tmp_path, name, breakage):
    shutil.copytree(E2E / "clip", tmp_path / "clip")
    shutil.copytree(E2E / name, tmp_path / name)
    BREAKAGES[breakage](tmp_path / name)
    findings = diagnose_checkpoint(str(tmp_path / name))
    try:
        load_pretrained_model(str(tmp_path / name), None, name, device_map=None, device="cpu")
        loads = True
    except (OSError, ValueError, AttributeError, TypeError):
        loads = False
    assert can_go_on(findings) == loads, "\n".join(map(str, findings))
    assert loads == (breakage == "whole" or (breakage == "tower without weights" and "v1.6" in name))
    assert all("get" in finding.message for finding in findings if finding.is_problem)


def test_a_folder_that_is_not_there_is_missing(tmp_path):
    (finding,) = diagnose_checkpoint(str(tmp_path / "llava-v1.5-7b"))
    assert finding.status == "missing" and "hf download" in finding.message


def test_the_embedded_checkpoint_is_whole():
    findings = diagnose_checkpoint(checkpoint_path())
    assert {finding.status for finding in findings} == {"ok"}


@pytest.mark.parametrize("extra", ["mm_projector.bin", "non_lora_trainables.bin"])
def test_a_projector_or_lora_needs_its_base_and_its_files(tmp_path, extra):
    shutil.copytree(E2E / "clip", tmp_path / "clip")
    folder = tmp_path / "tuned"
    folder.mkdir()
    shutil.copy(E2E / "llava-v1.5-tiny" / "config.json", folder)
    contents = {extra: lambda file: torch.save({"model.mm_projector.0.bias": torch.ones(2)}, file)}
    if extra == "non_lora_trainables.bin":
        pytest.importorskip("peft", reason="LoRAs need peft, the extra `lora`")
        settings = '{"peft_type": "LORA", "target_modules": ["q_proj"]}'
        contents["adapter_config.json"] = lambda file: file.write_text(settings)
        halves = {"base_model.model.lm_head.lora_A.weight": torch.ones(2, 2)}
        contents["adapter_model.safetensors"] = lambda file: save_file(halves, file)
    for name, write in contents.items():
        write(folder / name)
    findings = diagnose_checkpoint(str(folder))
    assert can_go_on(findings) and any("--model-base" in finding.message for finding in findings)
    for name, write in contents.items():
        (folder / name).write_bytes(b"cut")
        assert [finding.status for finding in diagnose_checkpoint(str(folder)) if finding.is_problem] == ["wrong"]
        (folder / name).unlink()
        problems = [finding for finding in diagnose_checkpoint(str(folder)) if finding.is_problem]
        assert problems and (extra == "mm_projector.bin" or any(name in finding.message for finding in problems))
        write(folder / name)


def test_a_tower_that_the_first_run_would_download_is_a_note(tmp_path):
    shutil.copytree(E2E / "llava-v1.5-tiny", tmp_path / "checkpoint")
    edit_config(tmp_path / "checkpoint", mm_vision_tower="openai/clip-vit-of-nobody")
    findings = diagnose_checkpoint(str(tmp_path / "checkpoint"))
    assert can_go_on(findings)
    assert any(finding.status == "note" and "hf download openai/clip-vit" in finding.message for finding in findings)
