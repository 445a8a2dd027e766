import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llava.asking.batch import generation_options, left_pad, pad_token_id, stack_images


def test_greedy_decoding_is_given_no_sampling_argument():
    assert generation_options(temperature=0, top_p=0.5) == {
        "num_beams": 1, "max_new_tokens": 128, "use_cache": True, "do_sample": False
    }  # fmt: skip


def test_a_temperature_means_sampling():
    options = generation_options(temperature=0.2, top_p=0.7, num_beams=2, max_new_tokens=9)
    assert (options["do_sample"], options["temperature"], options["top_p"]) == (True, 0.2, 0.7)
    assert (options["num_beams"], options["max_new_tokens"]) == (2, 9)


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=5))
def test_left_padding_puts_every_prompt_at_the_right_edge(rows):
    ids, mask = left_pad([torch.tensor(row) for row in rows], pad_id=0)
    assert ids.shape == mask.shape == (len(rows), max(map(len, rows)))
    for row, padded, kept in zip(rows, ids, mask, strict=True):
        assert padded[kept].tolist() == row and padded.tolist() == [0] * (len(padded) - len(row)) + row


def test_plain_images_are_stacked_and_tiled_ones_stay_apart():
    assert stack_images([torch.zeros(3, 8, 8)] * 2).shape == (2, 3, 8, 8)
    tiled = stack_images([torch.zeros(5, 3, 8, 8), torch.zeros(3, 3, 8, 8)])
    assert [len(image) for image in tiled] == [5, 3]


def test_a_tokenizer_without_a_pad_token_pads_with_the_end(llama_tokenizer):
    assert llama_tokenizer.pad_token_id is None
    assert pad_token_id(llama_tokenizer) == llama_tokenizer.eos_token_id


def test_an_unknown_setting_of_generation_is_named_with_the_valid_ones():
    with pytest.raises(TypeError, match="of generation max_tokens; valid are temperature, .*max_new_tokens"):
        generation_options(max_tokens=3)
