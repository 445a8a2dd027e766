import math

import pytest
import torch

from llava.asking.likelihood import common_prefix, score_rows, tail_labels
from llava.constants import IGNORE_INDEX


class TestScoreRows:
    probabilities = torch.tensor([[[0.5, 0.25, 0.25], [0.125, 0.375, 0.5]], [[0.2, 0.7, 0.1], [0.2, 0.7, 0.1]]])

    def test_the_loss_is_the_mean_over_the_scored_tokens(self):
        labels = torch.tensor([[0, 2], [IGNORE_INDEX, 0]])
        (first, _), (second, _) = score_rows(self.probabilities.log(), labels)
        assert first == pytest.approx(-(math.log(0.5) + math.log(0.5)) / 2)
        assert second == pytest.approx(-math.log(0.2))

    def test_greedy_means_that_every_scored_token_is_the_likeliest(self):
        logits = self.probabilities.log()
        assert [greedy for _, greedy in score_rows(logits, torch.tensor([[0, 2], [IGNORE_INDEX, 1]]))] == [True, True]
        assert [greedy for _, greedy in score_rows(logits, torch.tensor([[0, 1], [1, 0]]))] == [False, False]

    def test_a_row_without_a_label_is_an_error(self):
        with pytest.raises(ValueError, match="nothing of its continuation is left"):
            score_rows(self.probabilities.log(), torch.tensor([[0, 2], [IGNORE_INDEX, IGNORE_INDEX]]))

    def test_logits_that_are_not_finite_are_an_error(self):
        with pytest.raises(ValueError, match="not finite"):
            score_rows(torch.full((1, 1, 3), math.nan), torch.tensor([[0]]))


def test_tail_labels_are_the_last_tokens_of_every_row():
    ids = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    assert tail_labels(ids, [1, 3]).tolist() == [[IGNORE_INDEX, IGNORE_INDEX, 4], [6, 7, 8]]


@pytest.mark.parametrize(("one", "other", "length"), [([1, 2, 3], [1, 2], 2), ([1, 2], [1, 3], 1), ([], [1], 0)])
def test_common_prefix(one, other, length):
    assert common_prefix(one, other) == length
