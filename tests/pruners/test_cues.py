"""What a pruner is told: cues that may be missing, and those that it cannot do without."""

import pytest
import torch

from llava.pruners import VisualCues
from llava.pruners.cues import CUES, TEXT_FORMS


def test_a_cue_that_is_there_is_given_as_it_is():
    embeds = torch.randn(2, 9, 4)
    assert VisualCues(None, embeds).need("embeds") is embeds


@pytest.mark.parametrize("name", [name for name in (*CUES, *TEXT_FORMS) if name != "embeds"])
def test_a_cue_that_cannot_be_done_without_is_named_where_it_is_missing(name):
    with pytest.raises(ValueError, match=f"the cue {name} is needed, which is None"):
        VisualCues(None, torch.randn(2, 9, 4)).need(name)
