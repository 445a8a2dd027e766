"""FastV: the largest attention, ties to the lower index."""

import torch

from llava.pruners import VisualCues
from llava.pruners.fastv import FastV


def test_keeps_what_the_prompt_attends_to_most():
    attention = torch.tensor([[0.1, 0.4, 0.2, 0.3], [0.4, 0.3, 0.2, 0.1]])
    cues = VisualCues(features=None, embeds=None, text_attention=attention)
    assert FastV(2)(cues).tolist() == [[1, 3], [0, 1]]


def test_equal_attention_keeps_the_first_and_nan_comes_last():
    attention = torch.tensor([[0.2, torch.nan, 0.2, 0.2]])
    cues = VisualCues(features=None, embeds=None, text_attention=attention)
    assert FastV(2)(cues).tolist() == [[0, 2]]
    assert FastV(3)(cues).tolist() == [[0, 2, 3]]


def test_reads_attention_of_the_language_model_alone():
    assert FastV.needs == {"text_attention"} and not FastV(2).merges
