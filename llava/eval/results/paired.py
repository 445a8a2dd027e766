"""Two runs over the same questions, compared question by question: which of them each question tells apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Paired:
    """How a run with a pruner does on the questions that tell it from the run without one.

    Args:
        lost: questions that only the run without a pruner answers rightly, or better where there is more than right
            and wrong.
        won: questions that only the run with the pruner does.
    """

    lost: int
    won: int

    @classmethod
    def of(cls, unpruned: Sequence[float], pruned: Sequence[float]) -> "Paired":
        """Compare the scores of the same questions in the same order.

        Raises:
            ValueError: they are not as many.
        """
        pairs = list(zip(unpruned, pruned, strict=True))
        return cls(sum(one > other for one, other in pairs), sum(other > one for one, other in pairs))

    @property
    def p_value(self) -> float:
        """McNemar's exact p-value, two-sided: of right and wrong; of scores in between it is that of the sign test.

        Were both runs equally good, each such question would fall to either of them with probability 1/2.
        """
        total, tail, term = self.lost + self.won, 0, 1
        for k in range(min(self.lost, self.won) + 1):
            tail, term = tail + term, term * (total - k) // (k + 1)  # the term is the number of ways to choose k
        return min(1.0, 2 * tail / 2**total)

    @property
    def p_text(self) -> str:
        """The p-value to three places."""
        return "<0.001" if self.p_value < 0.001 else f"{self.p_value:.3f}"

    def __str__(self) -> str:
        equals = "" if self.p_text.startswith("<") else "="
        return f"[-{self.lost} +{self.won}, p{equals}{self.p_text}]"


def compare(unpruned: Mapping[str, float] | None, pruned: Mapping[str, float] | None) -> Paired | None:
    """Compare scores by question; None where one run has none, or they are of other questions."""
    if not unpruned or not pruned or unpruned.keys() != pruned.keys():
        return None
    return Paired.of(list(unpruned.values()), [pruned[question] for question in unpruned])
