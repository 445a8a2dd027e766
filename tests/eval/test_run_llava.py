import logging
from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from llava.asking import images
from llava.asking.images import image_parser, load_image
from llava.asking.llava import LlavaModel
from llava.asking.load import choose_conv_mode, load_model
from llava.asking.losses import warn_of_losses
from llava.asking.prompts import place_images
from llava.command import with_defaults
from llava.constants import IMAGE_TOKEN_INDEX
from llava.eval import run_llava
from llava.eval.run_llava import build_parser, eval_model
from llava.records import InputError


class OneQuestionModel:
    """Remembers what it was asked and always answers "It is red."."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, tokenizer, config):
        self.tokenizer, self.config = tokenizer, config

    def generate(self, input_ids, **given):
        self.input_ids, self.given = input_ids, given
        counts = [1] * len(given["image_sizes"])
        self.last_prune = SimpleNamespace(visual_tokens=counts, newline_tokens=counts, tokens_before=counts)
        return torch.tensor([self.tokenizer("It is red.").input_ids])


@pytest.fixture
def model(llama_tokenizer, model_config, processor, monkeypatch):
    model = OneQuestionModel(llama_tokenizer, model_config)
    model.loads = 0

    def load_model(args, pruner):
        model.loads, model.pruner = model.loads + 1, pruner
        return LlavaModel("one", llama_tokenizer, model, processor)

    monkeypatch.setattr(run_llava, "load_model", load_model)
    return model


@pytest.fixture
def image_file(tmp_path):
    Image.new("L", (9, 12), 77).save(tmp_path / "grey, with comma.png")
    return str(tmp_path / "grey, with comma.png")


def test_llavas_documented_call_prints_the_answer(model, image_file, capsys):
    args = type(
        "Args",
        (),
        {
            "model_path": None,
            "model_base": None,
            "model_name": "llava-shapes",
            "query": "What color is it?",
            "conv_mode": None,
            "image_file": image_file,
            "sep": ",",
            "temperature": 0,
            "top_p": None,
            "num_beams": 1,
            "max_new_tokens": 512,
        },
    )()
    eval_model(args)
    assert capsys.readouterr().out == "It is red.\n"
    assert model.pruner is None and model.given["texts"] == ["What color is it?"]
    assert model.given["image_sizes"] == [(9, 12)] and model.given["images"][0].shape == (3, 8, 8)
    assert model.given["do_sample"] is False and "temperature" not in model.given


def test_the_pruner_flags_reach_the_model(model, image_file):
    eval_model(Namespace(query="Q", image_file=image_file, pruner="divprune", visual_token_num=3))
    assert type(model.pruner).__name__ == "DivPrune" and model.pruner.visual_token_num == 3


def test_the_image_token_itself_serves_as_a_placeholder(model, image_file):
    eval_model(Namespace(query="<image>\nWhat is it?", image_file=image_file))
    assert (model.input_ids == IMAGE_TOKEN_INDEX).sum() == 1
    assert model.given["texts"] == ["What is it?"]


def test_images_of_different_sizes_and_tile_counts_go_in_together(model, image_file, tmp_path, model_config):
    model_config.image_aspect_ratio = "anyres"
    model_config.image_grid_pinpoints = [[8, 16], [16, 16]]
    Image.new("RGB", (40, 8)).save(tmp_path / "b.png")
    eval_model(Namespace(query="Q", image_file=f"{image_file};{tmp_path / 'b.png'}", sep=";"))
    assert [image.shape[1:] for image in model.given["images"]] == [(3, 8, 8)] * 2
    assert model.given["image_sizes"] == [(9, 12), (40, 8)]
    assert (model.input_ids == IMAGE_TOKEN_INDEX).sum() == 2


def test_an_existing_file_is_taken_whole_though_its_name_has_the_separator(image_file):
    assert image_parser(Namespace(image_file=image_file, sep=",")) == [image_file]
    assert image_parser(Namespace(image_file="a.png,b.png", sep=",")) == ["a.png", "b.png"]


def test_placeholders_say_where_the_images_go():
    query = "Compare <image-placeholder> with <image-placeholder>."
    assert place_images(query, 2, "<image>") == "Compare <image> with <image>."
    assert place_images("What is it?", 1, "<image>") == "<image>\nWhat is it?"
    assert place_images("Compare.", 2, "<image>") == "<image>\n<image>\nCompare."
    assert place_images("Is <image> a <image>?", 1, "<image>") == "<image>\nIs  a ?"


@pytest.mark.parametrize(
    ("attributes", "complaint"),
    [
        ({"query": "<image-placeholder> or <image-placeholder>?"}, "2 <image-placeholder>.* 1 images"),
        ({"image_file": "absent.png"}, r"cannot read the image absent\.png"),
        ({"image_file": "http://localhost:9/absent.png"}, "cannot read the image http://localhost:9/"),
        ({"conv_mode": "vicuna"}, "vicuna_v1"),
        ({"image_file": "absent.png", "sep": ""}, "--sep is empty"),
        ({"pruner": "divprune"}, "divprune needs a budget"),
    ],
)
def test_bad_input_is_refused_before_the_model_loads(model, image_file, attributes, complaint):
    with pytest.raises(InputError, match=complaint):
        eval_model(Namespace(**{"query": "Q", "image_file": image_file} | attributes))
    assert model.loads == 0


def test_reads_an_image_from_an_address(monkeypatch, image_file):
    with open(image_file, "rb") as file:
        monkeypatch.setattr(images.urllib.request, "urlopen", lambda url, timeout: file)
        assert load_image("https://example.org/grey.png").size == (9, 12)


def test_the_template_follows_the_models_name_and_another_is_used_with_a_warning(caplog):
    assert choose_conv_mode(SimpleNamespace(model_path="x/llava-v1.6-mistral-7b", conv_mode=None)) == "mistral_instruct"
    assert choose_conv_mode(SimpleNamespace(model_path=None, conv_mode=None)) == "vicuna_v1"
    with caplog.at_level(logging.WARNING):
        assert choose_conv_mode(SimpleNamespace(model_path="x/llava-v1.5-7b", conv_mode="vicuna_v1")) == "vicuna_v1"
    assert "implies --conv-mode llava_v1" in caplog.text


def test_an_answer_without_room_and_a_prompt_that_is_cut_are_said(llava_shapes, caplog):
    args = Namespace(model_path=llava_shapes, device="cpu")
    loaded = load_model(with_defaults(args, build_parser(), required=("--image-file", "--query")), None)
    image = Image.new("RGB", (20, 20))
    warn_of_losses([loaded.answer(image, "How many shapes are there?", max_new_tokens=64)])
    assert caplog.text == ""
    loaded.model.config.tokenizer_model_max_length = 150
    warn_of_losses([loaded.answer(image, "How many shapes are there?", max_new_tokens=1)])
    assert "of 1 questions 1 whose prompt lost its end" in caplog.text
