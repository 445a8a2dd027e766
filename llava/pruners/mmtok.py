"""MMTok: Multimodal Coverage Maximization for Efficient Inference of VLMs (ICLR 2026)."""

from dataclasses import dataclass

from torch import Tensor

from llava.pruners import search
from llava.pruners.base import Pruner
from llava.pruners.checks import is_number
from llava.pruners.cues import VisualCues
from llava.pruners.words import word_shares

RANGES = {"tau_tv": (1e-6, 1e6), "tau_vv": (1e-6, 1e6), "alpha": (0.0, 1e6)}  # where float32 has all numbers it takes


@dataclass(frozen=True)
class MMTok(Pruner):
    """Keep the tokens that together cover the words of the question and all visual tokens.

    Every word and every token spreads a probability over the tokens, a softmax of cosines: words over the projected
    tokens, tokens over the encoder's own, before a merger where there is one. Of a word or token what it gives to the
    likeliest kept one is covered; each step keeps the token that adds most to the mean of the words and alpha times
    that of the tokens. Patches that show nothing but a border come last. Without words the tokens alone count.

    Args:
        tau_tv: temperature of the words, in [1e-6, 1e6].
        tau_vv: temperature of the tokens, in [1e-6, 1e6].
        alpha: weight of the tokens against the words, in [0, 1e6].

    Raises:
        ValueError: when one is out of range.
    """

    tau_tv: float = 0.02
    tau_vv: float = 0.2
    alpha: float = 0.5

    needs = frozenset({"features", "premerger", "embeds", "text_tokens", "padding"})
    paper = "https://arxiv.org/abs/2508.18264"
    source = "https://github.com/Ironieser/MMTok"
    licence = "Apache-2.0"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if not (is_number(value) and low <= value <= high):
                raise ValueError(f"{name} must be a number in [{low:g}, {high:g}], not {value!r}")

    def select(self, cues: VisualCues, budget: int) -> Tensor:
        tokens = cues.need("features") if cues.premerger is None else cues.premerger
        words = None if cues.text_tokens is None else word_shares(cues.text_tokens, cues.need("embeds"), self.tau_tv)
        border = None if cues.padding is None else cues.padding > 0.5  # (B, N)
        return search.cover_softly(tokens, budget, self.tau_vv, self.alpha, words, border)
