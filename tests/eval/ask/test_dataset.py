from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from llava.constants import IMAGE_TOKEN_INDEX
from llava.eval.ask.dataset import WINDOW, ErrorsAsItems, ImageError, LengthSampler, QuestionDataset, Sample


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
    indices, items = zip(*map(ErrorsAsItems(dataset).__getitem__, range(3)), strict=True)
    assert indices == (0, 1, 2)
    assert [isinstance(item, ImageError) for item in items] == [False, True, False]
    with pytest.raises(ImageError, match=r"question 'absent': .*absent\.png"):
        dataset[1]


class Prompts:
    """Nothing but the lengths of prompts."""

    def __init__(self, lengths):
        self.lengths = lengths
        self.prompt_length = lengths.__getitem__

    def __len__(self):
        return len(self.lengths)


def padding(batches, lengths):
    return sum(max(lengths[i] for i in batch) - lengths[j] for batch in batches for j in batch)


@given(st.lists(st.integers(1, 9), max_size=300), st.integers(1, 3))
def test_every_question_is_in_one_batch_and_all_batches_but_the_last_are_full(lengths, size):
    sampler = LengthSampler(Prompts(lengths), size)
    batches = list(sampler)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1) and len(sampler) == len(batches)


@given(st.lists(st.integers(1, 9), min_size=6, max_size=6), st.sampled_from([2, 3]))
def test_no_way_to_fill_the_batches_of_a_window_needs_less_padding(lengths, size):
    def cut(order):
        return [order[start : start + size] for start in range(0, 6, size)]

    found = padding(LengthSampler(Prompts(lengths), size), lengths)
    assert found == min(padding(cut(order), lengths) for order in permutations(range(6)))


def test_no_question_leaves_its_window():
    lengths = list(range(4 * WINDOW + 1))
    batches = list(LengthSampler(Prompts(lengths), 2))
    assert batches[0] == [2 * WINDOW - 1, 2 * WINDOW - 2] and batches[WINDOW - 1] == [1, 0]
    assert batches[WINDOW][0] == 4 * WINDOW - 1 and batches[-1] == [4 * WINDOW]


def test_batches_of_one_keep_the_order_of_the_questions():
    assert list(LengthSampler(Prompts([1, 3, 2]), 1)) == [[0], [1], [2]]


def test_the_length_of_a_prompt_is_that_of_the_ids_the_model_gets(tmp_path, llama_tokenizer, processor, model_config):
    Image.new("RGB", (8, 8)).save(tmp_path / "i.png")
    samples = [Sample(0, "Why?", "", None), Sample(1, "<image>\nWhy, then?", "", tmp_path / "i.png")]
    dataset = QuestionDataset(samples, llama_tokenizer, processor, model_config, "vicuna_v1")
    assert [dataset.prompt_length(i) for i in range(2)] == [len(dataset[i][0]) for i in range(2)]
