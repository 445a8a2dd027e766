"""Cues that many tests draw."""

import pytest
import torch

from llava.pruners import VisualCues


def _random_cues(seed=0, tiles=1, tokens=16, width=24, image_index=None, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator).to(dtype)

    return VisualCues(
        features=draw(tiles, tokens, width),
        embeds=draw(tiles, tokens, width),
        cls_attention=draw(tiles, tokens).softmax(dim=-1),
        relevance=draw(tiles, tokens),
        image_index=image_index,
    )


@pytest.fixture(scope="session")
def random_cues():
    """A function that draws all four cues; tokens are in general position as long as width is at least tokens."""
    return _random_cues
