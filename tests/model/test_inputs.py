"""Tensors, sizes and texts of another form than a model reads are refused by name."""

import numpy as np
import pytest
import torch
from PIL import Image

from llava.mm_utils import tokenizer_image_token
from llava.model.inputs import check_images, check_prompts
from llava.selecting.options import check_texts

from .conftest import QUESTIONS, question_prompts

IDS = torch.tensor([[1, -200, 7], [0, 5, 6]])
MASK = torch.tensor([[1, 1, 1], [0, 1, 1]])
PIXELS = torch.ones(2, 3, 8, 8)
SIZES = [(4, 5), (6, 7)]


@pytest.mark.parametrize("ids", [IDS, IDS.int()])
@pytest.mark.parametrize("mask", [None, MASK, MASK.bool(), MASK.float()])
@pytest.mark.parametrize("labels", [None, IDS])
def test_prompts_of_the_right_form_pass(ids, mask, labels):
    check_prompts(ids, mask, labels, rows=8)
    check_prompts(torch.where(MASK.bool(), ids, -1), MASK, labels, rows=8)  # padding is no word


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ids": IDS.tolist()}, "input_ids must be a tensor .* not list"),
        ({"ids": IDS.numpy()}, "input_ids must be a tensor .* not ndarray"),
        ({"ids": IDS.float()}, "input_ids must be int64 or int32, not torch.float32"),
        ({"ids": IDS > 0}, "not torch.bool"),
        ({"ids": IDS[0]}, r"input_ids must be of shape \(B, L\), not \(3,\)"),
        ({"ids": IDS[None]}, r"not \(1, 2, 3\)"),
        ({"ids": IDS[:, :0]}, r"not \(2, 0\)"),
        ({"ids": IDS + 1}, "input_ids must be from 0 to 7, or -200"),
        ({"ids": torch.where(IDS == 7, -1, IDS)}, "input_ids must be from 0 to 7"),
        ({"mask": MASK.tolist()}, "attention_mask must be a tensor .* not list"),
        ({"mask": MASK[:, 1:]}, r"attention_mask must be of input_ids' shape \(2, 3\), not \(2, 2\)"),
        ({"mask": MASK[0]}, r"not \(3,\)"),
        ({"mask": MASK[:, None, None]}, r"not \(2, 1, 1, 3\)"),
        ({"mask": (1.0 - MASK) * -1e9}, "attention_mask must be 0 for padding"),
        ({"mask": MASK * torch.tensor([[1], [0]])}, "attention_mask leaves nothing of a prompt"),
        ({"labels": IDS[:1]}, "labels must be of input_ids' shape"),
    ],
)
def test_prompts_of_another_form_are_named(given, message):
    with pytest.raises((TypeError, ValueError), match=message):
        check_prompts(**{"ids": IDS, "mask": None, "labels": None, **given}, rows=8)


@pytest.mark.parametrize(
    "images", [PIXELS, PIXELS.half(), PIXELS[:, None], list(PIXELS), tuple(PIXELS), [PIXELS, PIXELS[0]]]
)
@pytest.mark.parametrize("sizes", [None, SIZES, np.array(SIZES), torch.tensor(SIZES)])
def test_images_of_the_right_form_pass(images, sizes):
    check_images(images, sizes, side=8)


@pytest.mark.parametrize(
    ("images", "sizes", "message"),
    [
        (PIXELS.numpy(), None, "images must be a tensor or a list .* not ndarray"),
        ({"pixel_values": PIXELS}, None, "not dict"),
        ([Image.new("RGB", (8, 8))], None, "images must be tensors.* not Image"),
        ([None], None, "not NoneType"),
        (PIXELS.byte(), None, "floating-point tensors.* not torch.uint8"),
        (PIXELS.to(torch.complex64), None, "not torch.complex64"),
        (PIXELS[0], None, r"\(B, 3, H, W\) .*H and W 8, not \(3, 8, 8\)"),
        (PIXELS[None, None], None, r"not \(1, 1, 2, 3, 8, 8\)"),
        (PIXELS.permute(0, 2, 3, 1), None, r"not \(2, 8, 8, 3\)"),
        (PIXELS[:, :1], None, r"not \(2, 1, 8, 8\)"),
        (PIXELS[..., :4], None, r"not \(2, 3, 8, 4\)"),
        ([PIXELS[0, 0]], None, r"\(tiles, 3, H, W\) each .*not \(8, 8\)"),
        (PIXELS, SIZES[:1], "image_sizes has 1 entries for 2 images"),
        (PIXELS, [4, 5], "image_sizes must be .* not 4"),
        (PIXELS, [(0, 5), (4, 5)], r"not \(0, 5\)"),
        (PIXELS, [(4, 5), (float("nan"), 5)], r"not \(nan, 5\)"),
        (PIXELS, ["ab", "cd"], "not 'ab'"),
        (PIXELS, [(4, 5, 3), (4, 5, 3)], r"not \(4, 5, 3\)"),
    ],
)
def test_images_of_another_form_are_named(images, sizes, message):
    with pytest.raises((TypeError, ValueError), match=message):
        check_images(images, sizes, side=8)


@pytest.mark.parametrize("texts", [{"a", "b"}, {"a": 1}, (text for text in "ab"), 5, b"ab", ["a", 1], [["a"]]])
def test_texts_of_another_form_are_named(texts):
    with pytest.raises(TypeError, match="`texts` must be"):
        check_texts(texts)


@pytest.mark.parametrize("texts", [None, "a", ["a", None], ("a", "b")])
def test_texts_of_the_right_form_pass(texts):
    check_texts(texts)


def test_a_layer_may_be_a_number_of_numpy(load, checkpoint):
    assert load(checkpoint, prune_layer=np.int64(1))[1].prune_layer == 1


def test_every_way_into_a_model_is_guarded(load, checkpoint):
    tokenizer, model, _, _ = load(checkpoint)
    (ids,) = question_prompts(tokenizer, QUESTIONS[:1])
    good = {"images": torch.ones(1, 3, 32, 32), "image_sizes": [(9, 9)], "texts": ["?"]}
    for name, bad in {"images": good["images"].byte(), "image_sizes": [(0, 9)], "texts": {"?"}}.items():
        for call in (
            lambda given: model.generate(ids[None], **given),
            lambda given: model(ids[None], **given),
            lambda given: model.prepare_inputs_labels_for_multimodal(ids[None], None, None, None, None, **given),
        ):
            with pytest.raises((TypeError, ValueError), match=name):
                call({**good, name: bad})
    words = ids[ids >= 0]
    for bad in (words, words.tolist(), words[None] + 10**6):
        with pytest.raises((TypeError, ValueError), match="input_ids"):
            model.generate(bad)


@pytest.mark.parametrize("prompt", [None, b"<image>", 5, ["<image>"]])
def test_a_prompt_that_is_no_text_is_named(llama_tokenizer, prompt):
    with pytest.raises(TypeError, match="a prompt must be a string"):
        tokenizer_image_token(prompt, llama_tokenizer)
