"""The checkpoint the package carries, and the road from a training state to LLaVA's format and back."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from transformers import CLIPTokenizer, LlamaTokenizer

from llava.constants import IMAGE_TOKEN_INDEX
from llava.conversation import conv_templates
from llava.mm_utils import process_images, tokenizer_image_token
from llava.model.builder import load_pretrained_model
from llava.shapes import checkpoint_path
from llava.shapes.benchmark import ask_all
from llava.shapes.questions import SHORT_ANSWER_PROMPT
from llava.shapes.scenes import COLORS, SHAPES, draw_scene, render, scene_generator
from scripts.shapes import export, train
from scripts.shapes.data import PromptTokens, draw_questions, draw_scenes, pixel_values, question_batch
from scripts.shapes.model import ShapesModel

CHECKPOINT = Path(checkpoint_path())
CLIP = CHECKPOINT.parent / "clip-shapes"


def load(folder, **options):
    return load_pretrained_model(str(folder), None, "llava-shapes", device="cpu", dtype="float32", **options)


def prompt(question: str) -> str:
    conversation = conv_templates["vicuna_v1"].copy()
    conversation.append_message(conversation.roles[0], f"<image>\n{question}\n{SHORT_ANSWER_PROMPT}")
    conversation.append_message(conversation.roles[1], None)
    return conversation.get_prompt()


def answers(loaded, pairs):
    """Greedy answers to (picture, question) pairs in one batch, padded on the left."""
    tokenizer, model, processor, _ = loaded
    images = [Image.fromarray(picture) for picture, _ in pairs]
    rows = [tokenizer_image_token(prompt(question), tokenizer, IMAGE_TOKEN_INDEX) for _, question in pairs]
    length = max(map(len, rows))
    out = model.generate(
        torch.tensor([[tokenizer.pad_token_id] * (length - len(row)) + row for row in rows]),
        attention_mask=torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows]),
        images=process_images(images, processor, model.config),
        image_sizes=[image.size for image in images],
        texts=[question for _, question in pairs],
        do_sample=False,
        max_new_tokens=8,
    )
    return [text.strip() for text in tokenizer.batch_decode(out, skip_special_tokens=True)]


@pytest.fixture(scope="module")
def asked():
    """Sixty questions of the test split with pictures and labels."""
    rng = scene_generator("test", 11)
    rows = []
    while len(rows) < 60:
        scene = draw_scene(rng, "test")
        rows += [(render(scene), question, answer) for _, question, answer in ask_all(scene, rng)]
    return rows[:60]


def right(loaded, rows) -> int:
    given = answers(loaded, [(picture, question) for picture, question, _ in rows])
    return sum(answer == label for answer, (_, _, label) in zip(given, rows, strict=True))


def test_the_embedded_model_answers_held_out_questions(asked):
    assert right(load(CHECKPOINT), asked) >= 54


def test_without_its_picture_the_model_only_guesses(asked):
    blank = [(np.full_like(picture, 128), question, answer) for picture, question, answer in asked]
    assert right(load(CHECKPOINT), blank) <= 30


@pytest.mark.parametrize("pruner", ["cdpruner", "divprune", "vispruner", "mfpruner"])
def test_a_quarter_of_the_tokens_still_answers_most_questions(pruner, asked):
    loaded = load(CHECKPOINT, pruner=pruner, visual_token_num=36)
    assert right(loaded, asked) >= 42
    assert loaded[1].last_prune.visual_tokens == [36] * len(asked)


def test_weights_are_float16_and_below_twelve_megabytes():
    files = [CHECKPOINT / "model.safetensors", CLIP / "model.safetensors"]
    assert sum(file.stat().st_size for file in files) < 12e6
    for file in files:
        with safe_open(file, framework="pt") as weights:
            assert {weights.get_tensor(name).dtype for name in weights.keys() if "position_ids" not in name} == {
                torch.float16
            }


def test_the_checkpoint_names_its_weights_as_llava_does():
    with safe_open(CHECKPOINT / "model.safetensors", framework="pt") as weights:
        names = set(weights.keys())
    assert {f"model.mm_projector.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")} <= names
    assert {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"} <= names
    assert all(name.startswith(("model.layers.", "model.mm_projector.")) for name in names if name.count(".") > 2)
    config = json.loads((CHECKPOINT / "config.json").read_text())
    assert config["architectures"] == ["LlavaLlamaForCausalLM"] and config["mm_vision_tower"] == "../clip-shapes"


def test_templates_are_single_pieces_and_any_text_survives_the_tokenizer():
    tokenizer = LlamaTokenizer.from_pretrained(CHECKPOINT, add_bos_token=True)
    assert len(tokenizer(prompt("Is there a red star?").split("<image>")[0]).input_ids) <= 4
    for word in (*COLORS, *SHAPES, "Yes", "No"):
        assert len(tokenizer(f"ASSISTANT: {word}").input_ids) == 3, word
    for text in ("Wofür? 42 naïve \u732b", "Is there a red star?\n"):
        assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


def test_clip_reads_every_word_as_one_token_and_ends_with_a_token_other_than_two():
    tokenizer = CLIPTokenizer.from_pretrained(CLIP)
    for word in (*COLORS, *SHAPES):
        assert len(tokenizer(word).input_ids) == 3, word
    config = json.loads((CLIP / "config.json").read_text())["text_config"]
    assert config["eos_token_id"] == tokenizer.eos_token_id != 2


@pytest.mark.usefixtures("can_train_tokenizers")
def test_an_exported_state_answers_with_the_logits_of_the_training_code(tmp_path):
    torch.manual_seed(0)
    run, output = tmp_path / "run", tmp_path / "output"
    source = ShapesModel(*train.tokenizers(run)).eval()
    for weight in source.parameters():
        weight.data = weight.data.half().float()
    torch.save({"average": source.state_dict(), "step": 0}, run / "language.pt")
    export.export(run, run / "language.pt", output)
    tokenizer, model, _, _ = load(output / "llava-shapes")
    prompts = PromptTokens(tokenizer)
    scene = draw_scenes(scene_generator("val", 1), "val", 1)[0]
    batch = question_batch([draw_questions(scene, np.random.default_rng(0), 1)], prompts)
    pixels = pixel_values([render(scene)])
    asked = torch.tensor([[*prompts.before_image, IMAGE_TOKEN_INDEX, *batch.ids[0, 0].tolist()]])
    with torch.no_grad():
        expected = source.answer_logits(source.see(pixels)[0], prompts.before_image, batch)
        logits = model(input_ids=asked, images=pixels, image_sizes=[(96, 96)]).logits[0]
    answered = batch.targets[0, 0] != -100
    torch.testing.assert_close(logits[-len(answered) :][answered], expected, atol=2e-5, rtol=1e-4)


def test_training_pixels_are_what_the_image_processor_makes_of_the_picture():
    _, model, processor, _ = load(CHECKPOINT)
    picture = render(draw_scene(scene_generator("val", 2), "val"))
    processed = process_images([Image.fromarray(picture)], processor, model.config)
    torch.testing.assert_close(pixel_values([picture]), processed.float(), atol=1e-6, rtol=0)
