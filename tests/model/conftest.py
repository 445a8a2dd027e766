"""Tiny LLaVA checkpoints with random weights, in the real format on disk, and what the tests ask of them."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel

from llava.constants import IMAGE_TOKEN_INDEX
from llava.mm_utils import process_images
from llava.model import LlavaConfig, LlavaLlamaForCausalLM, LlavaMistralConfig, LlavaMistralForCausalLM, decoding
from llava.model.builder import load_pretrained_model
from llava.model.decoding import Decoder
from llava.model.prompt_pass import PromptPass
from llava.model.replay import Replays
from llava.pruners import PRUNERS, Pruner, resolve_pruner
from llava.pruners.cues import INSIDE_CUES

E2E = Path(__file__).parent.parent / "e2e"
SIDE = 4  # patches along a tile of the tiny CLIP: 32 pixels in patches of 8
PINPOINTS = [[32, 64], [64, 32], [64, 64], [96, 32], [32, 96]]
CLASSES = {
    "llama": (LlavaConfig, LlavaLlamaForCausalLM),
    "mistral": (LlavaMistralConfig, LlavaMistralForCausalLM),
}
QUESTIONS = ["What color is the large shape?", "How many?", "Is there a red circle in the picture? Say yes or no."]


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory) -> Path:
    """A CLIP of four vision blocks on 32 x 32 pixels, default initialisation."""
    folder = tmp_path_factory.mktemp("clips") / "clip"
    torch.manual_seed(0)
    widths = {"intermediate_size": 64, "num_attention_heads": 4}
    config = CLIPConfig(
        text_config={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "vocab_size": 538,
            "bos_token_id": 536,
            "eos_token_id": 537,
            **widths,
        },
        vision_config={"hidden_size": 48, "num_hidden_layers": 4, "image_size": 32, "patch_size": 8, **widths},
        projection_dim=24,
    )
    CLIPModel(config).save_pretrained(folder)
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(E2E / "checkpoints" / "clip" / name, folder)
    processor = json.loads((E2E / "checkpoints" / "clip" / "preprocessor_config.json").read_text())
    processor |= {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory, clip_folder):
    """Return a function that writes a checkpoint: ``make_checkpoint(backbone, anyres=..., **config)``."""

    def make(backbone: str = "llama", anyres: bool = False, name: str = "tiny", **changes) -> Path:
        config_class, model_class = CLASSES[backbone]
        anyres_keys = {"image_grid_pinpoints": PINPOINTS, "mm_patch_merge_type": "spatial_unpad"}
        config = config_class(
            **{
                "vocab_size": 900,
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "initializer_range": 0.3,  # larger than default, so that greedy answers differ from each other
                "mm_vision_tower": str(clip_folder),
                "mm_vision_select_layer": -2,
                "mm_hidden_size": 48,
                "mm_projector_type": "mlp2x_gelu",
                "mm_use_im_patch_token": False,
                "image_aspect_ratio": "anyres" if anyres else "pad",
                "tokenizer_model_max_length": 2048,
                **(anyres_keys if anyres else {}),
                **changes,
            }
        )
        torch.manual_seed(1)
        folder = tmp_path_factory.mktemp(name) / f"llava-{name}"
        model_class(config).save_pretrained(folder)
        for file in ("tokenizer.model", "tokenizer_config.json"):
            shutil.copy(E2E / "checkpoints" / "llava-v1.5-tiny" / file, folder)
        return folder

    return make


@pytest.fixture(scope="session")
def checkpoint(make_checkpoint) -> Path:
    """A Llama checkpoint as LLaVA-1.5: one tile per image, the vision tower beside it."""
    return make_checkpoint()


@pytest.fixture(scope="session")
def anyres_checkpoint(make_checkpoint) -> Path:
    """A Llama checkpoint as LLaVA-NeXT: several tiles per image and newline tokens."""
    return make_checkpoint(anyres=True, name="anyres")


@pytest.fixture
def load():
    """Return a function that loads a checkpoint on the CPU in float32: ``load(folder, **options)``."""

    def load(folder: Path, **options):
        options = {"device": "cpu", "dtype": "float32", **options}
        return load_pretrained_model(str(folder), None, folder.name, **options)

    return load


@pytest.fixture
def images() -> list[Image.Image]:
    """Three images of different shapes, full of detail."""
    generator = torch.Generator().manual_seed(3)
    sizes = [(90, 70), (40, 100), (120, 38)]
    noise = [torch.randint(0, 256, (8, 8, 3), generator=generator, dtype=torch.uint8) for _ in sizes]
    return [
        Image.fromarray(pixels.numpy()).resize(size, Image.Resampling.BICUBIC)
        for pixels, size in zip(noise, sizes, strict=True)
    ]


def pruner_of(name: str, budget: int) -> Pruner:
    """A pruner with options that fit a tower of four blocks."""
    return resolve_pruner(name, budget, **({"object_layer": 2} if name == "hiprune" else {}))


def layer_for(name: str | None) -> int:
    """A ``prune_layer`` at which the pruner of that name can choose."""
    return int(name in PRUNERS and bool(PRUNERS[name].needs & INSIDE_CUES))


def prompt_ids(tokenizer, *pieces: str) -> torch.Tensor:
    """Token ids of text pieces with an image between each two, (L,)."""
    ids = list(tokenizer(pieces[0]).input_ids)
    for piece in pieces[1:]:
        ids += [IMAGE_TOKEN_INDEX, *tokenizer(piece, add_special_tokens=False).input_ids]
    return torch.tensor(ids)


def left_pad(rows: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack prompts, (B, L), and say which ids are real, (B, L)."""
    length = max(len(row) for row in rows)
    ids = torch.stack([torch.nn.functional.pad(row, (length - len(row), 0)) for row in rows])
    mask = torch.stack([torch.arange(length) >= length - len(row) for row in rows])
    return ids, mask.long()


def generate(model, tokenizer, processor, images, texts, prompts, **options) -> torch.Tensor:
    """Answer a batch of prompts greedily; returns the new token ids."""
    ids, mask = left_pad(prompts)
    return model.generate(
        ids,
        images=process_images(images, processor, model.config),
        image_sizes=[image.size for image in images],
        texts=texts,
        attention_mask=mask,
        max_new_tokens=8,
        do_sample=False,
        **options,
    )


def question_prompts(tokenizer, questions: list[str]) -> list[torch.Tensor]:
    """One prompt per question, each with one image."""
    return [prompt_ids(tokenizer, "USER: ", f"\n{question} ASSISTANT:") for question in questions]


class Recorder:
    """Stands for a CUDA graph: computes in tensors of its own, which the next call overwrites."""

    made: list["Recorder"] = []

    def __init__(self, function, arguments, pool=None, copied=True):
        self.function = function
        self.inputs = {name: value.clone() if copied else value for name, value in arguments.items()}
        self.calls = 0
        self.made.append(self)

    def __call__(self, arguments):
        self.calls += 1
        for name, value in arguments.items():
            self.inputs[name].copy_(value)
        return tuple(None if each is None else each.clone() for each in self.function(**self.inputs))


@pytest.fixture
def graphs(monkeypatch):
    """The graphs that were captured."""
    monkeypatch.setattr(Recorder, "made", [])
    monkeypatch.setattr(decoding, "Graph", Recorder)
    return Recorder.made


def with_graphs(model):
    """What ``cuda_graphs`` does to a model."""
    model._replays, model._decoder, model._prompt_pass = Replays(Recorder), Decoder(), PromptPass(Recorder)
