"""What a call of a model kept of its images."""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class PruneRecord:
    """What the last call of a model kept, one entry per image in each list.

    ``keep`` holds, per image, a (tiles, K) tensor of patch indices when each tile was selected from alone; a list of
    two 1-D tensors (base tile; unpadded grid in raster order) on LLaVA-NeXT's native layout; or one 1-D tensor of
    positions in the merged sequence when the image was selected from as a whole. It is None without a pruner.
    ``visual_tokens`` counts what the language model saw, newline tokens included; ``tokens_before`` what it would
    have seen without a pruner; both before a prompt over ``tokenizer_model_max_length`` is cut. Of a pruner that merges
    tokens, the indices are the places where the merged ones stand; of one that chooses inside the language model, the
    counts are those of the layers behind it. ``cut`` says of every prompt of the call, one without an image included,
    how many positions it lost at its end to that limit; of a call without images there is a record only if it lost any.
    """

    keep: list[Tensor | list[Tensor]] | None = None
    visual_tokens: list[int] = field(default_factory=list)
    newline_tokens: list[int] = field(default_factory=list)
    tokens_before: list[int] = field(default_factory=list)
    cut: list[int] = field(default_factory=list)
