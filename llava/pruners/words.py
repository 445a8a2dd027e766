"""What the words of a question say about patches. No value is read back to the host.

Words and texts are multiplied a fixed number at a time: a question's share is the same to the last bit, however many
words the longest question of a batch has.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from llava.pruners.search.products import directions, measured, unit_vectors

WORDS_AT_ONCE = 16
SHARPNESS = 100.0  # of the softmax over the patches
LISTENED_TO = 0.2  # share of a text's positions
PATIENCE = 0.01 + 1e-6  # temperature of entropy


def word_shares(words: Tensor, tokens: Tensor, tau: float) -> Tensor:
    """What each word spreads over the tokens, all words one together, by a softmax of cosines over a temperature.

    A word without direction, as one that fills up a question, spreads nothing.

    Args:
        words: (B, M, D).
        tokens: (B, N, D).
        tau: temperature, above 0.

    Returns:
        (B, N, M'), zeros behind M.
    """
    tokens, scale = directions(tokens)
    words, length = measured(pad(words, (0, 0, 0, -words.shape[1] % WORDS_AT_ONCE)))
    said = (length < torch.inf).float()  # (B, M', 1)
    cosines = torch.cat([part @ tokens.mT for part in (words / length).split(WORDS_AT_ONCE, dim=1)], dim=1)
    cosines = cosines if scale is None else cosines * scale.unsqueeze(1)
    return ((cosines / tau).softmax(dim=2) * (said / said.sum(dim=1, keepdim=True).clamp_min(1))).mT


def relevance_to_words(patches: Tensor, texts: Tensor) -> Tensor:
    """The relevance of patches to the positions of texts that point at the fewest of them, negated cosines.

    How many patches a position points at is the entropy of a softmax over the patches. Of each text the fifth of the
    positions with the least counts, the more the less entropy a position has; of several texts the mean. A text of
    zeros is none.

    Args:
        patches: (B, N, E).
        texts: (B, M, L, E).

    Returns:
        (B, N), zeros without a text.
    """
    patches, texts = unit_vectors(patches), unit_vectors(texts)
    said = (texts != 0).flatten(2).any(dim=2).float()  # (B, M)
    count = max(1, int(LISTENED_TO * texts.shape[2]))
    total = patches.new_zeros(patches.shape[:2])
    for text, counts in zip(texts.unbind(dim=1), said.unbind(dim=1), strict=True):
        relevance = -(text @ patches.mT)  # (B, L, N)
        share = (SHARPNESS * relevance).softmax(dim=2)
        entropy = -(share * (share + 1e-12).log()).sum(dim=2)  # (B, L)
        least = entropy.argsort(dim=1, stable=True)[:, :count]  # (B, K)
        weight = (-entropy.gather(1, least) / PATIENCE).softmax(dim=1)
        of_text = (weight.unsqueeze(2) * relevance.take_along_dim(least.unsqueeze(2), dim=1)).sum(dim=1)
        total = total + of_text * counts.unsqueeze(1)
    return total / said.sum(dim=1, keepdim=True).clamp_min(1)
