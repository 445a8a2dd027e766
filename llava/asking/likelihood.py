"""How likely a given answer is: what lmms-eval's ``loglikelihood`` tasks compare."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from llava.constants import IGNORE_INDEX


def common_prefix(one: list[int], other: list[int]) -> int:
    """The number of token ids that two prompts begin with alike."""
    differ = (index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differ, min(len(one), len(other)))


def score_rows(logits: Tensor, labels: Tensor) -> list[tuple[float, bool]]:
    """The loss of the labels of every row, and whether greedy decoding would have produced them.

    Args:
        logits: (B, L, V), the prediction of ``labels`` at the same place.
        labels: (B, L) token ids, ``IGNORE_INDEX`` where nothing is scored.

    Returns:
        Per row the mean negative log-likelihood of its tokens, in nats, and True if each is the most likely one.

    Raises:
        ValueError: a row without a label.
    """
    scored = labels != IGNORE_INDEX
    if not scored.any(dim=1).all():
        raise ValueError("a prompt is so long that nothing of its continuation is left")
    losses = functional.cross_entropy(
        logits.float().transpose(1, 2), labels, ignore_index=IGNORE_INDEX, reduction="none"
    )  # (B, L)
    means = (losses.sum(dim=1) / scored.sum(dim=1)).tolist()
    greedy = ((logits.argmax(dim=-1) == labels) | ~scored).all(dim=1).tolist()
    if not all(map(math.isfinite, means)):
        raise ValueError("the model's logits are not finite: try dtype=bfloat16 or dtype=float32")
    return list(zip(means, greedy, strict=True))


def tail_labels(ids: Tensor, counts: list[int]) -> Tensor:
    """Labels for the last ``counts[i]`` tokens of row i of ``ids`` (B, L), padded in front: (B, max(counts))."""
    longest = max(counts)
    columns = torch.arange(longest, device=ids.device)
    skipped = longest - torch.tensor(counts, device=ids.device).unsqueeze(1)
    return ids[:, -longest:].masked_fill(columns < skipped, IGNORE_INDEX)
