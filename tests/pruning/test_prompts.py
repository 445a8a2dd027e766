"""What a prompt's text says of its images."""

import torch

from llava.pruning.prompts import text_relevance


def test_relevance_is_the_cosine_to_the_mean_of_the_text():
    embeds = torch.tensor([[3.0, 3.0], [-1.0, -1.0], [1.0, -1.0], [0.0, 5.0]])
    text = torch.tensor([[2.0, 0.0], [0.0, 2.0]])  # mean (1, 1)
    expected = torch.tensor([1.0, -1.0, 0.0, 0.5**0.5])
    torch.testing.assert_close(text_relevance(embeds, text), expected)
    assert text_relevance(embeds, text[:0]) is None
