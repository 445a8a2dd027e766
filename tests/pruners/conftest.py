"""Cues that many tests draw, and the ways in which they are searched."""

from contextlib import ExitStack, contextmanager, nullcontext
from unittest.mock import patch

import pytest
import torch

from llava.pruners import VisualCues, mfpruner
from llava.pruners.cues import CUES, PER_TOKEN_VECTORS
from llava.pruners.search import coverage, dpp, duplicates, farthest, products


@contextmanager
def as_on_a_device():
    """The form of a selection that other devices than the CPU take, of tensors wherever they are."""
    with ExitStack() as stack:
        for module in (coverage, dpp, duplicates, farthest, mfpruner, products):
            stack.enter_context(patch.object(module, "on_cpu", lambda _: False))
        yield


FORMS = {"cpu": nullcontext, "device": as_on_a_device}


def _random_cues(seed=0, tiles=1, tokens=16, width=24, image_index=None, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator).to(dtype)

    cues = {name: draw(tiles, tokens, width) if name in PER_TOKEN_VECTORS else draw(tiles, tokens) for name in CUES}
    cues |= {name: cue.softmax(dim=-1) for name, cue in cues.items() if name.endswith("attention")}
    texts = {"text_tokens": draw(tiles, 3, width), "text_sequence": draw(tiles, 2, 7, width)}
    grid = (tokens // 4, 4) if tokens % 4 == 0 else (1, tokens)
    return VisualCues(**cues, **texts, grid=grid, image_index=image_index)


@pytest.fixture(scope="session")
def random_cues():
    """A function that draws every cue; tokens are in general position as long as width is at least tokens."""
    return _random_cues
