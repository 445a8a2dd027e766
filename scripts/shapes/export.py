"""Writes a training state as LLaVA v1.5 stores checkpoints: `llava-shapes` and its CLIP `clip-shapes`, in float16."""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from llava.command import Parser, run_program
from llava.shapes.scenes import IMAGE_SIZE
from scripts.shapes.data import PIXEL_MEAN, PIXEL_STD
from scripts.shapes.model import SELECT_LAYER, VISION, ShapesModel
from scripts.shapes.train import tokenizers

MULTIMODAL = {
    "mm_vision_tower": "../clip-shapes",
    "mm_vision_select_layer": SELECT_LAYER,
    "mm_vision_select_feature": "patch",
    "mm_projector_type": "mlp2x_gelu",
    "mm_hidden_size": VISION["hidden_size"],
    "mm_use_im_start_end": False,
    "mm_use_im_patch_token": False,
    "image_aspect_ratio": "pad",
    "unfreeze_mm_vision_tower": False,
    "use_mm_proj": True,
    "tokenizer_model_max_length": 2048,
    "tokenizer_padding_side": "right",
}


def half_precision(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Contiguous float16 copies on the CPU."""
    return {name: weight.detach().to("cpu", torch.float16).contiguous() for name, weight in weights.items()}


def export_language(model: ShapesModel, folder: Path) -> None:
    """Llama and projector under LLaVA's names, and the configuration that points at the CLIP beside it."""
    weights = model.llm.state_dict() | {
        f"model.mm_projector.{name}": weight for name, weight in model.projector.state_dict().items()
    }
    save_file(half_precision(weights), folder / "model.safetensors", metadata={"format": "pt"})
    config = model.llm.config.to_dict() | MULTIMODAL
    config |= {"architectures": ["LlavaLlamaForCausalLM"], "model_type": "llava_llama", "torch_dtype": "float16"}
    for name in ("dtype", "_name_or_path", "rope_parameters"):
        config.pop(name, None)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    generation = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")


def export_clip(model: ShapesModel, folder: Path) -> None:
    """The whole CLIP, as trained jointly, with its image processor's settings."""
    model.clip.half().save_pretrained(folder)
    size = IMAGE_SIZE
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(PIXEL_MEAN),
        "image_std": list(PIXEL_STD),
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")


def export(run_dir: Path, state_file: Path, output_dir: Path) -> int:
    """Writes both folders of the averaged weights in `state_file`, with the run's tokenizers; returns the step."""
    model = ShapesModel(*tokenizers(run_dir))
    state = torch.load(state_file)
    model.load_state_dict(state["average"])
    for name in ("clip-shapes", "llava-shapes"):
        shutil.copytree(run_dir / name, output_dir / name, dirs_exist_ok=True)
    export_language(model, output_dir / "llava-shapes")
    export_clip(model, output_dir / "clip-shapes")
    return state["step"]


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--run-dir", type=Path, required=True, help="folder of the training run, with its tokenizers")
    parser.add_argument("--state", type=Path, help="training state (default: language.pt in the run's folder)")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder of the two checkpoints")
    return parser


def main(args: argparse.Namespace) -> None:
    """Write the checkpoints of a training state."""
    state_file = args.state or args.run_dir / "language.pt"
    step = export(args.run_dir, state_file, args.output_dir)
    print(f"step {step} of {state_file} written to {args.output_dir}")


if __name__ == "__main__":
    run_program(build_parser(), main)
