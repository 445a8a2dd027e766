"""What the conversion refuses, and that it leaves nothing behind."""

import json
import shutil
from pathlib import Path

import pytest

from llava.command import run_program
from llava.convert import program
from llava.convert.parser import convert_parser
from llava.shapes import checkpoint_path

E2E = Path(__file__).parents[1] / "e2e"
CHECKPOINT = E2E / "checkpoints" / "llava-v1.5-tiny"


def edited(tmp_path: Path, **changes) -> Path:
    """A copy of the 1.5 checkpoint with another config."""
    folder = shutil.copytree(CHECKPOINT, tmp_path / "edited")
    config = json.loads((folder / "config.json").read_text())
    config["mm_vision_tower"] = str(E2E / "checkpoints" / "clip")
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mm_vision_tower": "../nowhere"}, r"mm_vision_tower '../nowhere': no such folder"),
        ({"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}, r"GPT2LMHeadModel.*LlavaLlamaForCausalLM"),
        ({"mm_projector_type": "linear"}, r"mm_projector_type is 'linear'.*'mlp2x_gelu'"),
        ({"mm_use_im_start_end": True}, r"mm_use_im_start_end is True"),
        ({"image_aspect_ratio": "anyres", "mm_patch_merge_type": "spatial"}, r"mm_patch_merge_type is 'spatial'"),
        ({"image_aspect_ratio": "anyres", "mm_patch_merge_type": "spatial_unpad"}, r"no image_grid_pinpoints"),
        (
            {"image_aspect_ratio": "anyres", "mm_patch_merge_type": "spatial_unpad", "image_grid_pinpoints": "(1x1)"},
            r"image_grid_pinpoints '\(1x1\)' is no list of canvases",
        ),
        ({"num_hidden_layers": 3}, r"lacks weights: model\.layers\.2"),
        ({"intermediate_size": 100}, r"layers\.0\.mlp\.\w+\.weight is \(.*by its config"),
    ],
)
def test_what_cannot_be_converted_is_told_before_anything_is_written(tmp_path, changes, message):
    source = edited(tmp_path, **changes)
    with pytest.raises((ValueError, OSError), match=message):
        program.to_hf(source, tmp_path / "out" / "hf")
    assert not (tmp_path / "out").exists()


def test_a_tower_of_another_kind_is_told(tmp_path):
    clip = shutil.copytree(E2E / "checkpoints" / "clip", tmp_path / "clip")
    config = json.loads((clip / "config.json").read_text())
    (clip / "config.json").write_text(json.dumps(config | {"model_type": "siglip"}))
    with pytest.raises(ValueError, match="'siglip'; towers are CLIP's"):
        program.to_hf(CHECKPOINT, tmp_path / "hf", vision_tower=str(clip))


def test_a_tower_without_weights_is_told(tmp_path):
    clip = shutil.copytree(E2E / "checkpoints" / "clip", tmp_path / "clip")
    (clip / "pytorch_model.bin").unlink()
    with pytest.raises(FileNotFoundError, match="clip holds no weights"):
        program.to_hf(CHECKPOINT, tmp_path / "hf", vision_tower=str(clip))


def test_another_tower_than_the_models_is_refused_on_the_way_back(tmp_path):
    program.to_hf(CHECKPOINT, tmp_path / "hf")
    clip = str(Path(checkpoint_path()).parent / "clip-shapes")
    with pytest.raises(ValueError, match=r"not that of .*hidden_size 96 here and 128 there"):
        program.to_llava(tmp_path / "hf", tmp_path / "back", vision_tower=clip)


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(program, "write_weights", full)
    with pytest.raises(OSError, match="No space"):
        program.to_hf(CHECKPOINT, tmp_path / "hf")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model-path", "{llava}", "--output-path", "{out}"], "is there already"),
        (["--model-path", "{llava}", "--output-path", "{out}/new", "--to", "llava"], "can be written from Llava"),
        (["--model-path", "/nowhere", "--output-path", "{out}/new"], "no such folder"),
        (["--model-path", "x", "--output-path", "y", "--to", "llava", "--conv-mode", "vicuna_v1"], "--conv-mode"),
    ],
)
def test_the_command_line_ends_with_a_line_that_says_what_to_do(tmp_path, arguments, message):
    places = {"{llava}": str(CHECKPOINT), "{out}": str(tmp_path)}
    for key, place in places.items():
        arguments = [argument.replace(key, place) for argument in arguments]
    with pytest.raises(SystemExit, match=message):
        run_program(convert_parser(), program.convert, arguments)
