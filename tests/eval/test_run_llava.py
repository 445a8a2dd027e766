from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from llava.asking.batch import generation_options
from llava.asking.llava import LlavaModel
from llava.asking.load import load_model
from llava.asking.losses import warn_of_losses
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


def test_an_answer_without_room_and_a_prompt_that_is_cut_are_said(llava_shapes, caplog):
    args = Namespace(model_path=llava_shapes, device="cpu")
    loaded = load_model(with_defaults(args, build_parser(), required=("--image-file", "--query")), None)
    image = Image.new("RGB", (20, 20))
    warn_of_losses([loaded.answer(image, "How many shapes are there?", max_new_tokens=64)])
    assert caplog.text == ""
    loaded.model.config.tokenizer_model_max_length = 150
    asked = loaded.asked("How many shapes are there?", [image])
    warn_of_losses(loaded.answer_items([asked], generation_options(max_new_tokens=1)))
    assert "of 1 questions 1 whose prompt lost its end" in caplog.text
