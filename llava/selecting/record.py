"""What a call of a model kept of its images."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from llava.selecting.budgets import Budget
from llava.selecting.parts import Visual


@dataclass
class PruneRecord:
    """What the last call of a model kept, one entry per image or video in each list, in the order of the prompts.

    ``keep`` holds, per image, the kept positions (K,) of the sequence that the language model reads of it, ascending,
    newline tokens among them. It is None without a pruner. ``visual_tokens`` counts what the language model saw,
    newline tokens included; ``tokens_before`` what it would have seen without a pruner; both before a prompt over
    ``tokenizer_model_max_length`` is cut. Of a pruner that merges tokens, the positions are the places where the merged
    ones stand; of one that chooses inside the language model, the counts are those of the layers behind it. ``cut``
    says of every prompt of the call, one without an image included, how many positions it lost at its end to that
    limit; of a call without images there is a record only if it lost any. ``budgets`` says what each image or video was
    given where that depends on what it shows, else None.
    """

    keep: list[Tensor] | None = None
    visual_tokens: list[int] = field(default_factory=list)
    newline_tokens: list[int] = field(default_factory=list)
    tokens_before: list[int] = field(default_factory=list)
    cut: list[int] = field(default_factory=list)
    budgets: list[Budget] | None = None

    @classmethod
    def of(
        cls,
        visuals: Sequence[Visual],
        kept: list[Tensor] | None,
        judged: bool = True,
        budgets: list[Budget] | None = None,
    ) -> "PruneRecord":
        """Count what was kept; ``kept`` is None where nothing was pruned.

        ``judged`` says whether newline tokens could go; where they could, the device is waited for to count them.
        """
        before = [visual.length for visual in visuals]
        newlines = [0 if visual.newline is None else int(visual.newline.sum()) for visual in visuals]
        if kept is None:
            return cls(None, list(before), newlines, before)
        if not judged:
            return cls(kept, [len(positions) for positions in kept], newlines, before, budgets=budgets)
        for index, (visual, positions) in enumerate(zip(visuals, kept, strict=True)):
            if newlines[index] and visual.newline is not None:
                newlines[index] = int(visual.newline[positions.cpu()].sum())
        return cls(kept, [len(positions) for positions in kept], newlines, before, budgets=budgets)
