import numpy as np
import pytest
import torch
from PIL import Image

from llava.constants import IMAGE_TOKEN_INDEX
from llava.eval.dataset import ErrorsAsItems, ImageError, QuestionDataset, Sample


@pytest.fixture
def item_of(tmp_path, llama_tokenizer, processor, model_config):
    """The dataset's item for one image."""

    def encode(image, suffix=".png", question="What is it?"):
        image.save(tmp_path / f"image{suffix}")
        sample = Sample(1, question, question, tmp_path / f"image{suffix}")
        return QuestionDataset([sample], llama_tokenizer, processor, model_config, "vicuna_v1")[0]

    return encode


def test_an_item_is_prompt_pixels_and_original_size(item_of, llama_tokenizer):
    input_ids, pixels, size = item_of(Image.new("RGB", (30, 20)))
    assert size == (30, 20) and pixels.shape == (3, 8, 8)
    assert (input_ids == IMAGE_TOKEN_INDEX).sum() == 1
    tail = input_ids[input_ids.tolist().index(IMAGE_TOKEN_INDEX) + 1 :]
    assert llama_tokenizer.decode(tail).strip() == "What is it? ASSISTANT:"


def test_a_question_that_says_image_shows_one_image_all_the_same(item_of):
    input_ids, _, _ = item_of(Image.new("RGB", (30, 20)), question="<image>\nWhat is it?")
    assert (input_ids == IMAGE_TOKEN_INDEX).sum() == 1


@pytest.mark.parametrize(("mode", "suffix"), [("P", ".png"), ("RGBA", ".png"), ("CMYK", ".jpg"), ("RGB", ".webp")])
def test_the_file_format_does_not_change_what_is_seen(item_of, mode, suffix):
    red = Image.new("RGB", (16, 9), (255, 0, 0))
    _, expected, _ = item_of(red)
    _, pixels, _ = item_of(red.convert(mode), suffix)
    assert torch.allclose(pixels, expected, atol=0.1)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16"])
def test_grey_images_are_seen_as_grey(item_of, mode):
    full = 65535 if mode == "I;16" else 255
    values = np.full((9, 9), full, dtype=np.uint16 if mode == "I;16" else np.uint8)
    white = Image.fromarray(values) if mode == "I;16" else Image.fromarray(values).convert(mode)
    assert torch.allclose(item_of(white)[1], item_of(Image.new("RGB", (9, 9), (255, 255, 255)))[1], atol=0.02)


@pytest.mark.parametrize("size", [(1, 1), (10000, 10), (3, 4000)])
def test_any_size_is_seen(item_of, size):
    _, pixels, seen = item_of(Image.new("RGB", size, (9, 9, 9)))
    assert seen == size and pixels.isfinite().all()


def test_an_unreadable_image_comes_back_in_its_place(tmp_path, llama_tokenizer, processor, model_config):
    Image.new("RGB", (8, 8)).save(tmp_path / "good.png")
    samples = [Sample(name, "Q", "Q", tmp_path / f"{name}.png") for name in ("good", "absent", "good")]
    dataset = QuestionDataset(samples, llama_tokenizer, processor, model_config, "vicuna_v1")
    items = list(map(ErrorsAsItems(dataset).__getitem__, range(3)))
    assert [isinstance(item, ImageError) for item in items] == [False, True, False]
    with pytest.raises(ImageError, match=r"question 'absent': .*absent\.png"):
        dataset[1]
