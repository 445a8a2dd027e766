"""A pruner that notes what it is told and chooses by all of it: what a host gives is seen through it."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from llava.pruners import Pruner, VisualCues
from llava.pruners.cues import CUES, TEXT_FORMS

EVERYTHING = ("embeds", "relevance", "object_attention", "deep_attention", "joint_embeds", "text_tokens")
EVERYTHING += ("text_sequence",)


@dataclass(frozen=True, eq=False)
class Watching(Pruner):
    """Reads the cues in ``reads``, notes them in ``seen``, and keeps the tokens of which they say most."""

    reads: tuple[str, ...] = ()
    layer: int = 2
    seen: list[VisualCues] = field(default_factory=list, repr=False)

    __eq__, __hash__ = object.__eq__, object.__hash__  # each notes for itself, whatever a model remembers

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "needs", frozenset(self.reads))

    def asks(self, cue: str) -> dict[str, int]:
        return {"layer": self.layer} if cue == "object_attention" else {}

    def select(self, cues: VisualCues, budget: int) -> Tensor:
        self.seen.append(cues)
        score = torch.zeros(cues.shape, device=cues.device)
        for name in self.reads:
            cue = getattr(cues, name)
            if cue is None:
                continue
            if name in TEXT_FORMS:
                vectors = cue.flatten(1, -2)  # (B, M, D)
                seen = cues.embeds if name == "text_tokens" else cues.joint_embeds
                products = (seen.unsqueeze(2) * vectors.unsqueeze(1)).sum(dim=3)  # (B, N, M)
                none = ~vectors.any(dim=2).unsqueeze(1)  # what fills up
                score = score + products.masked_fill(none, -1e4).amax(dim=2)
            else:
                score = score + (cue if cue.ndim == 2 else cue.norm(dim=2))
        return score.topk(budget).indices

    @property
    def told(self) -> VisualCues:
        """The cues of the only call."""
        (cues,) = self.seen
        return cues


def given(cues: VisualCues) -> set[str]:
    """The names of the cues that are there."""
    return {name for name in (*CUES, *TEXT_FORMS) if getattr(cues, name) is not None}
