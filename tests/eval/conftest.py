"""A model without weights that answers with a digest of what it was given, and question files to ask it."""

import json
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil

from llava.asking.llava import LlavaModel
from llava.constants import IMAGE_TOKEN_INDEX
from llava.eval.ask import program as evaluation


class EchoModel:
    """Answers each row with the length and checksum of its unpadded prompt, its image's mean or that it has none, and
    its text.

    What a row gets depends on nothing but that row, so a batching fault anywhere before the model shows.
    """

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, tokenizer, config):
        self.tokenizer = tokenizer
        self.config = config
        self.calls = []

    def generate(self, input_ids, attention_mask=None, images=None, image_sizes=None, texts=None, **generation):
        padding = int((~attention_mask).sum())
        self.calls.append({"rows": len(input_ids), "texts": texts, "padding": padding, **generation})
        rows = [ids[mask.bool()] for ids, mask in zip(input_ids, attention_mask, strict=True)]
        shown = [int((row == IMAGE_TOKEN_INDEX).sum()) for row in rows]
        images = [] if images is None else list(images)
        assert max(shown) <= 1 and sum(shown) == len(images)
        seen = iter([f"{image.mean():.4f} {size}" for image, size in zip(images, image_sizes, strict=True)])
        answers = [
            f"{len(row)} {int(row.sum())} {next(seen) if count else 'no image'} {text}"
            for row, count, text in zip(rows, shown, texts, strict=True)
        ]
        counts = {"visual_tokens": 5, "newline_tokens": 0, "tokens_before": 9}
        per_image = {name: [count] * len(images) for name, count in counts.items()}
        self.last_prune = SimpleNamespace(**per_image) if images else None
        ids = [self.tokenizer(answer).input_ids[1:] + [self.tokenizer.eos_token_id] for answer in answers]
        longest = max(map(len, ids))
        return torch.tensor([row + [generation["pad_token_id"]] * (longest - len(row)) for row in ids])


@pytest.fixture
def processor():
    return CLIPImageProcessorPil(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8})


@pytest.fixture
def model_config():
    return SimpleNamespace(
        image_aspect_ratio="pad", mm_use_im_start_end=False, image_grid_pinpoints=None, _attn_implementation="sdpa"
    )


@pytest.fixture
def echo_model(llama_tokenizer, model_config):
    return EchoModel(llama_tokenizer, model_config)


@pytest.fixture
def loaded(echo_model, llama_tokenizer, processor):
    return LlavaModel("echo", llama_tokenizer, echo_model, processor)


@pytest.fixture
def loads(monkeypatch, loaded):
    """The calls of ``load_model``, which gives every program that asks questions the echo model."""
    calls = []

    def load_model(args, pruner):
        calls.append((args, pruner))
        return loaded

    monkeypatch.setattr(evaluation, "load_model", load_model)
    return calls


@pytest.fixture
def questions(tmp_path) -> SimpleNamespace:
    """Seven questions of different lengths about images of different sizes; two of them share an id."""
    folder = tmp_path / "images with spaces"
    folder.mkdir()
    lines = []
    for i in range(7):
        Image.new("RGB", (8 + i, 12), (30 * i, 5, 200)).save(folder / f"{i}.png")
        text = f"Is it{' very' * i} red?\nAnswer the question using a single word or phrase."
        lines.append({"question_id": min(i, 5), "image": f"{i}.png", "text": text, "category": "color"})
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return SimpleNamespace(lines=lines, file=file, images=folder)


@pytest.fixture
def put(tmp_path):
    """Write a file below the test's folder and return its path: ``.jsonl`` from records, ``.json``, else text."""

    def write(name: str, content) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".jsonl"):
            content = "".join(json.dumps(record) + "\n" for record in content)
        elif name.endswith(".json"):
            content = json.dumps(content)
        path.write_text(content, encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def ask(tmp_path, loads):
    """Run a program with the echo model on files below the test's folder; returns the records it wrote."""

    def call(program, **attributes):
        answers = tmp_path / "answers.jsonl"
        usual = {"answers_file": answers, "num_workers": 0, "temperature": 0, "conv_mode": "vicuna_v1"}
        program.eval_model(SimpleNamespace(**usual | {"overwrite": True} | attributes))
        return [json.loads(line) for line in answers.read_text().splitlines()]

    return call
