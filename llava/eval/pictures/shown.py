"""What is shown of a question: its picture, the right answer, and what was answered at every setting."""

from collections.abc import Sequence
from dataclasses import dataclass

NO_ANSWER = "(no answer)"


@dataclass(frozen=True)
class View:
    """A picture with a path over it.

    Args:
        name: of the picture, in ``Gallery.pictures``.
        width, height: how many units the path has across and down.
        covered: the path, SVG.
    """

    name: str
    width: int
    height: int
    covered: str = ""


@dataclass(frozen=True)
class Said:
    """An answer.

    Args:
        tokens: visual tokens that the language model read, None if unknown.
        score: in [0, 1], None if unknown.
        changed: whether it is another one than without a pruner.
        views: what the encoder saw, dropped patches covered.
        note: what there is to say of it, "" for nothing.
    """

    pruner: str
    setting: str
    tokens: int | float | None
    text: str
    score: float | None
    changed: bool
    views: Sequence[View] = ()
    note: str = ""

    @property
    def verdict(self) -> str:
        """Right, wrong, or what share of right; "" if unknown."""
        if self.score is None:
            return ""
        return {1.0: "right", 0.0: "wrong"}.get(self.score, f"{self.score:.2f} of 1")

    @property
    def seen_tokens(self) -> str:
        """How many tokens the language model read, in words; "" if unknown."""
        return "" if self.tokens is None else f"{self.tokens} tokens"


@dataclass(frozen=True)
class Shown:
    """A question with its answers.

    Args:
        truth: the right answer, "" if it is not known here.
        picture: the image, where no view of an answer shows it.
        note: what keeps it from being shown.
    """

    prompt: str
    truth: str
    answers: Sequence[Said]
    picture: View | None = None
    note: str = ""


@dataclass(frozen=True)
class Section:
    """The questions of a benchmark, or why there are none."""

    title: str
    notes: Sequence[str]
    questions: Sequence[Shown] = ()
