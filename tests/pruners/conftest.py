"""Cues that many tests draw."""

import pytest
import torch

from llava.pruners import VisualCues
from llava.pruners.base import CUES

PER_TOKEN = ("features", "embeds", "keys", "last_keys")  # a vector each; of the other cues a number


def _random_cues(seed=0, tiles=1, tokens=16, width=24, image_index=None, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator).to(dtype)

    cues = {name: draw(tiles, tokens, width) if name in PER_TOKEN else draw(tiles, tokens) for name in CUES}
    cues |= {name: cue.softmax(dim=-1) for name, cue in cues.items() if name.endswith("attention")}
    return VisualCues(**cues, image_index=image_index)


@pytest.fixture(scope="session")
def random_cues():
    """A function that draws every cue; tokens are in general position as long as width is at least tokens."""
    return _random_cues
