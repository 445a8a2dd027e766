"""The same checkpoint through LLaVA's classes and through Transformers' own: the same numbers."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from llava.command import run_program
from llava.constants import IMAGE_TOKEN_INDEX
from llava.conversation import conv_templates
from llava.convert import program
from llava.convert.configs import RECORD
from llava.convert.names import is_tower
from llava.convert.parser import convert_parser
from llava.convert.weights import read_weights
from llava.mm_utils import process_images, tokenizer_image_token
from llava.model import LlavaMistralConfig, LlavaMistralForCausalLM
from llava.model.builder import load_pretrained_model
from llava.pruning import prune
from llava.shapes import checkpoint_path
from llava.shapes.benchmark import write_benchmark

E2E = Path(__file__).parents[1] / "e2e"
CHECKPOINTS = {
    "1.5": E2E / "checkpoints" / "llava-v1.5-tiny",
    "1.6": E2E / "checkpoints" / "llava-v1.6-vicuna-tiny",
    "shapes": Path(checkpoint_path()),
}
PICTURES = ["img2_336x336.png", "img3_900x300.png"]


@dataclass
class Both:
    """A checkpoint as LLaVA's classes read it, and as Transformers' do."""

    tokenizer: object
    llava: object
    image_processor: object
    hf: object
    processor: object

    def embeds(self, image: Image.Image, prompt: str) -> torch.Tensor:
        """What LLaVA's language model reads, (1, L, D)."""
        inputs = self.inputs(image, prompt)
        arguments = (inputs.pop("inputs"), None, None, None, None)
        return self.llava.prepare_inputs_labels_for_multimodal(*arguments, **inputs)[4]

    def inputs(self, image: Image.Image, prompt: str) -> dict:
        ids = tokenizer_image_token(prompt, self.tokenizer, IMAGE_TOKEN_INDEX, return_tensors="pt").unsqueeze(0)
        pixels = process_images([image], self.image_processor, self.llava.config)
        return {"inputs": ids, "images": pixels, "image_sizes": [image.size]}

    def llava_answer(self, image: Image.Image, prompt: str, text: str | None = None) -> list[int]:
        return self.llava.generate(**self.inputs(image, prompt), texts=text, max_new_tokens=8)[0].tolist()

    def hf_answer(self, image: Image.Image, prompt: str) -> list[int]:
        inputs = self.processor(images=image, text=prompt, return_tensors="pt")
        ids = self.hf.generate(**inputs, max_new_tokens=8, do_sample=False)[0]
        return ids[inputs.input_ids.shape[1] :].tolist()


def load_llava(folder: Path):
    return load_pretrained_model(str(folder), None, folder.name, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Return a function that converts each checkpoint once, and gives the folder."""
    folders = {}

    def get(name: str) -> Path:
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp("converted") / "hf"
            program.to_hf(CHECKPOINTS[name], folders[name])
        return folders[name]

    return get


@pytest.fixture(scope="module")
def both(converted):
    """Return a function that loads each checkpoint once in both ways, in float32 on the CPU."""
    loaded = {}

    def get(name: str) -> Both:
        if name not in loaded:
            tokenizer, model, image_processor, _ = load_llava(CHECKPOINTS[name])
            hf = AutoModelForImageTextToText.from_pretrained(converted(name), dtype=torch.float32)
            processor = AutoProcessor.from_pretrained(converted(name), backend="pil")  # torchvision resizes otherwise
            loaded[name] = Both(tokenizer, model, image_processor, hf.eval(), processor)
        return loaded[name]

    return get


def vicuna(question: str) -> str:
    conversation = conv_templates["vicuna_v1"].copy()
    conversation.append_message(conversation.roles[0], f"<image>\n{question}")
    conversation.append_message(conversation.roles[1], None)
    return conversation.get_prompt()


@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("name", ["1.5", "1.6"])
def test_logits_and_answers_are_those_of_llava(both, name, picture):
    models, image, prompt = both(name), Image.open(E2E / "images" / picture), vicuna("What is in the picture?")
    inputs = models.processor(images=image, text=prompt, return_tensors="pt")
    with torch.no_grad():
        expected = models.llava(inputs_embeds=models.embeds(image, prompt)).logits
        logits = models.hf(**inputs).logits
    assert logits.shape[2] % 64 == 0
    torch.testing.assert_close(logits[..., : expected.shape[2]], expected, atol=1e-5, rtol=0)
    assert models.hf_answer(image, prompt) == models.llava_answer(image, prompt)


@pytest.fixture(scope="module")
def questions(tmp_path_factory) -> list[tuple[Image.Image, str, str]]:
    """Forty questions about drawn scenes: image, prompt and bare question."""
    folder = tmp_path_factory.mktemp("shapes")
    write_benchmark(folder, num_questions=40, seed=5)
    rows = [json.loads(line) for line in (folder / "shapes_test.jsonl").read_text().splitlines()]
    return [
        (Image.open(folder / "images" / row["image"]), vicuna(row["text"]), row["text"].split("\n")[0]) for row in rows
    ]


def test_the_trained_model_answers_alike_through_both(both, questions):
    models = both("shapes")
    answers = [models.llava_answer(image, prompt) for image, prompt, _ in questions]
    assert [models.hf_answer(image, prompt) for image, prompt, _ in questions] == answers
    assert len({tuple(answer) for answer in answers}) > 8


@pytest.mark.usefixtures("can_prune")
@pytest.mark.parametrize("name", ["cdpruner", "divprune", "vispruner", "mfpruner"])
def test_the_trained_model_answers_alike_through_both_with_a_pruner(both, questions, name):
    models = both("shapes")
    clip = str(CHECKPOINTS["shapes"].parent / "clip-shapes")
    tokenizer, model, image_processor, _ = load_pretrained_model(
        checkpoint_path(), None, "llava", device="cpu", dtype="float32", pruner=name, visual_token_num=9
    )
    pruned = Both(tokenizer, model, image_processor, models.hf, models.processor)
    with prune(models.hf, name, visual_token_num=9, relevance="clip_text", text_tower=clip) as record:
        for image, prompt, question in questions[:20]:
            record.texts = [question]
            answer = pruned.hf_answer(image, prompt)
            assert answer == pruned.llava_answer(image, prompt, question)
            assert record.keep[0].tolist() == model.last_prune.keep[0].tolist()


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_way_back_gives_the_same_tensors_bit_for_bit(converted, tmp_path, name):
    program.to_llava(converted(name), tmp_path / "back")
    before, after = read_weights(CHECKPOINTS[name]), read_weights(tmp_path / "back")
    assert all(is_tower(added) for added in set(after) - set(before))
    assert any(is_tower(stored) for stored in after)
    for weight, tensor in before.items():
        assert after[weight].dtype == tensor.dtype
        assert torch.equal(after[weight], tensor)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_way_back_gives_a_model_that_answers_alike(both, converted, tmp_path, name):
    program.to_llava(converted(name), tmp_path / "back")
    tokenizer, model, image_processor, length = load_llava(tmp_path / "back")
    models, image, prompt = both(name), Image.open(E2E / "images" / PICTURES[0]), vicuna("How many are there?")
    back = Both(tokenizer, model, image_processor, None, None)
    with torch.no_grad():
        assert torch.equal(back.embeds(image, prompt), models.embeds(image, prompt))
    assert back.llava_answer(image, prompt) == models.llava_answer(image, prompt)
    assert length == load_llava(CHECKPOINTS[name])[3]
    before, after = (
        json.loads((folder / "config.json").read_text()) for folder in (CHECKPOINTS[name], tmp_path / "back")
    )
    assert {key for key in before if before[key] != after[key]} <= {"mm_vision_tower", "unfreeze_mm_vision_tower"}


@pytest.mark.parametrize("name", ["1.5", "1.6"])
def test_a_checkpoint_that_never_was_llavas_can_become_one(both, converted, tmp_path, name):
    folder = shutil.copytree(converted(name), tmp_path / "hf")
    config = json.loads((folder / "config.json").read_text())
    del config[RECORD]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="--vision-tower"):
        program.to_llava(folder, tmp_path / "llava")
    program.to_llava(folder, tmp_path / "llava", vision_tower=str(E2E / "checkpoints" / "clip"))
    models, image, prompt = both(name), Image.open(E2E / "images" / PICTURES[1]), vicuna("How many are there?")
    back = Both(*load_llava(tmp_path / "llava")[:3], None, None)
    assert torch.equal(back.embeds(image, prompt), models.embeds(image, prompt))
    assert back.llava_answer(image, prompt) == models.llava_answer(image, prompt)


@pytest.fixture
def mistral(tmp_path) -> Path:
    """LLaVA-1.6 on Mistral, in bfloat16, the tower beside it."""
    reference = json.loads((CHECKPOINTS["1.6"] / "config.json").read_text())
    kept = {key: value for key, value in reference.items() if key.startswith(("mm_", "image_"))}
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlavaMistralConfig(
        **kept | {"mm_vision_tower": str(E2E / "checkpoints" / "clip")},
        **sizes,
        num_hidden_layers=2,
        vocab_size=900,
        rope_theta=1e6,
        initializer_range=0.3,
        sliding_window=None,
        unfreeze_mm_vision_tower=False,
    )
    torch.manual_seed(0)
    LlavaMistralForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path / "mistral")
    for file in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copy(CHECKPOINTS["1.6"] / file, tmp_path / "mistral")
    return tmp_path / "mistral"


def test_mistral_in_several_files_and_its_own_dtype(mistral, tmp_path):
    program.to_hf(mistral, tmp_path / "hf", shard_size="100KB")
    stored = [load_file(file) for file in (tmp_path / "hf").glob("model-*.safetensors")]
    assert len(stored) > 2
    towers = {tensor.dtype for part in stored for key, tensor in part.items() if key.startswith("vision_tower")}
    others = {tensor.dtype for part in stored for key, tensor in part.items() if not key.startswith("vision_tower")}
    assert (towers, others) == ({torch.float16}, {torch.bfloat16})
    assert AutoConfig.from_pretrained(tmp_path / "hf").dtype == torch.bfloat16
    hf = AutoModelForImageTextToText.from_pretrained(tmp_path / "hf", dtype=torch.float32).eval()
    assert hf.config.text_config.model_type == "mistral"
    assert hf.config.text_config.rope_parameters["rope_theta"] == 1e6
    processor = AutoProcessor.from_pretrained(tmp_path / "hf")
    models = Both(*load_llava(mistral)[:3], hf, processor)
    image = Image.open(E2E / "images" / PICTURES[0])
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}]
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
    assert prompt == "[INST] <image>\nWhat is this? [/INST]"
    assert models.hf_answer(image, prompt) == models.llava_answer(image, prompt)


def test_the_command_line_converts_both_ways(tmp_path):
    for step in (
        ["--model-path", str(CHECKPOINTS["1.5"]), "--output-path", str(tmp_path / "hf")],
        ["--to", "llava", "--model-path", str(tmp_path / "hf"), "--output-path", str(tmp_path / "back")],
    ):
        run_program(convert_parser(), program.convert, step)
    assert read_weights(tmp_path / "back").keys() >= read_weights(CHECKPOINTS["1.5"]).keys()
