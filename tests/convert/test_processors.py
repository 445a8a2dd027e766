"""Prompts and pixels of a converted checkpoint are those that LLaVA makes."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, LlavaConfig, LlavaNextConfig

from llava.conversation import conv_templates
from llava.convert.configs import swapped
from llava.convert.parser import CONV_MODES
from llava.convert.processors import chat_template, hf_image_processor, hf_tokenizer
from llava.mm_utils import process_images, tokenizer_image_token
from llava.model import LlavaLlamaForCausalLM, LlavaMistralForCausalLM
from llava.model.builder import load_tokenizer

FOLDER = Path(__file__).parents[1] / "e2e" / "checkpoints" / "llava-v1.6-vicuna-tiny"
PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008], [336, 1344]]
SIZES = [(640, 480), (336, 336), (40, 41), (333, 7), (5, 300), (100, 401)]
# A prompt that starts with a space is no prompt of LLaVA's, and the one thing that comes out otherwise.
PROMPTS = (
    st.lists(st.text(alphabet="aR .\n▁1:", max_size=6) | st.sampled_from(["</s>", "USER: ", "<image>", "<image>\n"]))
    .map("".join)
    .filter(lambda prompt: prompt[:1] not in (" ", "▁"))
)


@pytest.fixture(
    scope="module",
    params=[(LlavaLlamaForCausalLM, False), (LlavaMistralForCausalLM, True)],
    ids=["llama", "mistral, legacy"],
)
def tokenizer(request, tmp_path_factory):
    """A tokenizer as the loader gives it for either backbone, with the settings that its checkpoints have."""
    model_class, legacy = request.param
    folder = tmp_path_factory.mktemp("tokenizer")
    shutil.copy(FOLDER / "tokenizer.model", folder)
    settings = json.loads((FOLDER / "tokenizer_config.json").read_text()) | {"legacy": legacy}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text(json.dumps({"model_type": model_class.config_class.model_type}))
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def clip() -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil.from_pretrained(FOLDER.parent / "clip")


def next_config() -> LlavaNextConfig:
    return LlavaNextConfig(
        image_grid_pinpoints=swapped(PINPOINTS), vision_config=CLIPVisionConfig(image_size=336, patch_size=14)
    )


def test_a_prompt_in_one_pass_has_the_ids_of_its_pieces(tokenizer):
    converted = hf_tokenizer(tokenizer)
    image_id = converted.convert_tokens_to_ids("<image>")

    @given(PROMPTS)
    def check(prompt):
        assert converted(prompt).input_ids == tokenizer_image_token(prompt, tokenizer, image_id)

    check()


def test_an_image_of_many_tokens_is_followed_as_one(tokenizer):
    converted = hf_tokenizer(tokenizer)
    image_id = converted.convert_tokens_to_ids("<image>")
    one, many = (converted(f"USER: {'<image>' * count}\nWhat?").input_ids for count in (1, 9))
    assert [token for token in many if token != image_id] == [token for token in one if token != image_id]
    assert many.count(image_id) == 9


def test_the_rule_of_the_tokenizer_is_needed(tokenizer):
    converted = hf_tokenizer(tokenizer)
    with_rule = converted("a<image> b").input_ids
    converted.backend_tokenizer.normalizer = None
    assert len(converted("a<image> b").input_ids) == len(with_rule) - 1


def test_the_loaders_tokenizer_stays_as_it_is(tokenizer):
    before = tokenizer.backend_tokenizer.to_str()
    assert len(hf_tokenizer(tokenizer)) == len(tokenizer) + 2
    assert tokenizer.backend_tokenizer.to_str() == before


@pytest.mark.parametrize("mode", CONV_MODES)
def test_the_chat_template_writes_llavas_prompt(tokenizer, mode):
    conversation = conv_templates[mode].copy()
    turns = ['<image>\n<image>\nWhat\'s "this"?', "A cat.", "And that?", None]
    for index, turn in enumerate(turns):
        conversation.append_message(conversation.roles[index % 2], turn)
    question = {"type": "text", "text": turns[0].rpartition("\n")[2]}
    messages = [
        {"role": "user", "content": [{"type": "image"}, question, {"type": "image"}]},
        {"role": "assistant", "content": [{"type": "text", "text": turns[1]}]},
        {"role": "user", "content": turns[2]},
    ]
    template = chat_template(conv_templates[mode])
    options = {"chat_template": template, "tokenize": False}
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, **options)
    assert prompt == conversation.get_prompt()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("aspect_ratio", ["pad", "square", "anyres"])
def test_pixels_are_those_of_llava(clip, aspect_ratio, size):
    image = Image.effect_noise(size, 90).convert("RGB")
    raw = {"image_aspect_ratio": aspect_ratio, "image_grid_pinpoints": PINPOINTS}
    processor = hf_image_processor(clip, raw, next_config() if aspect_ratio == "anyres" else LlavaConfig())
    pixels = processor(image, return_tensors="pt").pixel_values
    assert pixels.equal(process_images([image], clip, SimpleNamespace(**raw)))
