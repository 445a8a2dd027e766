"""The attention baseline."""

import torch

from llava.pruners import VisualCues
from llava.pruners.cls_topk import ClsTopK


def keep(budget, *attention):
    return ClsTopK(budget)(VisualCues(features=None, embeds=None, cls_attention=torch.tensor([attention]))).tolist()


def test_keeps_the_most_attended_tokens_in_raster_order():
    assert keep(2, 0.1, 0.4, 0.2, 0.3) == [[1, 3]]


def test_ties_go_to_the_lower_index():
    assert keep(3, 0.2, 0.1, 0.2, 0.1, 0.2, 0.1) == [[0, 2, 4]]
    assert keep(2, 0.2, 0.2, 0.2) == [[0, 1]]


def test_attention_that_is_not_finite_ranks_lowest():
    assert keep(2, torch.nan, 0.1, torch.inf, 0.2) == [[1, 3]]
