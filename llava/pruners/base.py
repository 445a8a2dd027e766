"""The contract every visual-token pruner follows: cues in, indices out."""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from llava.pruners.checks import check_tensor, is_count, is_number, plain
from llava.pruners.cues import CUES, OPTIONAL_CUES, TEXT_FORMS, VisualCues
from llava.pruners.merging import product

BUDGETS = ("visual_token_num", "keep_ratio")


@dataclass(frozen=True)
class Pruner(ABC):
    """Chooses which visual tokens the language model sees.

    A method subclasses this, lists the cues it reads in ``needs`` and implements ``select``; its
    dataclass fields are its options, in Python and on the command line. An option may change ``needs`` and ``scope``:
    ``__post_init__`` sets them on the instance by ``object.__setattr__``.

    Args:
        visual_token_num: tokens kept per tile, 0 or more; from the number of tokens up, all are kept.
        keep_ratio: share of the tokens kept, in (0, 1]; ``round(keep_ratio * N)`` are, halves to even, and
            at least one.

    Raises:
        ValueError: unless exactly one of the two is given, and valid.
    """

    visual_token_num: int | None = None
    keep_ratio: float | None = None

    needs: ClassVar[frozenset[str]] = frozenset()
    scope: ClassVar[str] = "tile"  # what a selection covers of an image of several tiles: "tile", or "image" at once
    paper: ClassVar[str] = ""  # where the method is described; "" of one that is not
    source: ClassVar[str] = ""  # where its authors' code is; "" of a method without
    licence: ClassVar[str] = ""  # of that code, "none" of code without one; "" where nobody looked
    newlines: ClassVar[bool] = True  # whether LLaVA-NeXT's newline tokens may be candidates, if their cues are known

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.scope not in ("tile", "image"):
            raise TypeError(f"{cls.__name__}.scope must be 'tile' or 'image', not {cls.scope!r}")
        if unknown := sorted(set(cls.needs) - {*CUES, *TEXT_FORMS}):
            raise TypeError(f"{cls.__name__}.needs names unknown cues {unknown}; the cues are {[*CUES, *TEXT_FORMS]}")

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, plain(getattr(self, field.name)))
        tokens, ratio = self.visual_token_num, self.keep_ratio
        if (tokens is None) == (ratio is None):
            raise ValueError(f"give exactly one of visual_token_num and keep_ratio, not {tokens!r} and {ratio!r}")
        if tokens is not None and not is_count(tokens):
            raise ValueError(f"visual_token_num must be an integer, 0 or more, not {tokens!r}")
        if ratio is not None and not (is_number(ratio) and 0 < ratio <= 1):
            raise ValueError(f"keep_ratio must be a number in (0, 1], not {ratio!r}")

    def budget(self, num_tokens: int) -> int:
        """How many of ``num_tokens`` tokens are kept; a share never comes to none, which would be a blind answer."""
        if self.keep_ratio is not None:
            return min(max(1, self._share(num_tokens, self.keep_ratio)), num_tokens)
        assert self.visual_token_num is not None  # one of the two is given
        return min(self.visual_token_num, num_tokens)

    def _share(self, num_tokens: int, keep_ratio: float) -> int:
        """``keep_ratio`` of so many tokens, rounded."""
        return round(keep_ratio * num_tokens)

    def with_budget(self, visual_token_num: int) -> "Pruner":
        """The same pruner with another number of kept tokens."""
        return replace(self, visual_token_num=visual_token_num, keep_ratio=None)

    def options(self) -> dict[str, Any]:
        """The method's own options by name, without the budget."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in BUDGETS}

    def given(self) -> dict[str, Any]:
        """Budget and options as records state them: without those that are None, or off as they are by default."""
        values = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        unset = {name for name, (value, default) in values.items() if value is None or value is default is False}
        return {name: value for name, (value, _) in values.items() if name not in unset}

    def asks(self, cue: str) -> dict[str, Any]:
        """How a cue is to be made that can be made in several ways, by name of the parameter; {} is the usual way."""
        return {}

    def __call__(self, cues: VisualCues) -> Tensor:
        """Choose tokens within each tile, in float32, without gradients.

        Returns:
            (B, min(T, N)) int64 on the device of the cues, distinct and ascending in each row, whatever the cues hold.

        Raises:
            TypeError: when ``cues`` are none.
            ValueError: when a cue in ``needs`` is missing that is not in ``OPTIONAL_CUES``, or they are on several
                devices.
        """
        if not isinstance(cues, VisualCues):
            raise TypeError(f"{type(self).__name__} chooses by VisualCues, not {type(cues).__name__}")
        batch, num_tokens = cues.shape
        budget = self.budget(num_tokens)
        if budget in (0, num_tokens):
            return torch.arange(budget, device=cues.device).repeat(batch, 1)
        cues = self._in_float32(cues)
        with torch.no_grad(), _full_precision(cues.device.type):
            chosen = self.select(cues, budget)
        check_tensor(f"what {type(self).__name__}.select returns", chosen, "(B, T)", torch.int64, (batch, budget))
        return chosen.sort(dim=-1).values

    def apply(self, tokens: Tensor, keep: Tensor, cues: VisualCues) -> Tensor:
        """Make the tokens that the language model sees: the kept ones, or what the method merges in their places.

        Merging is done in float32 and costs B * K * N numbers of memory. An entry that is not finite counts as zero
        there. Where all tokens are kept, nothing is merged.

        Args:
            tokens: (B, N, D) of the tiles that ``cues`` describe.
            keep: (B, K) what the pruner chose of them.
            cues: what it chose by.

        Returns:
            (B, K, D) in the dtype of the tokens.

        Raises:
            TypeError: when ``tokens`` hold no floating-point numbers, or ``keep`` no int64.
            ValueError: when they are not of the shapes above, or a cue in ``needs`` is missing.
        """
        check_tensor("tokens", tokens, "(B, N, D)", shape=(*cues.shape, None))
        check_tensor("keep", keep, "(B, K)", torch.int64, (cues.shape[0], None))
        weights = None
        if 0 < keep.shape[1] < tokens.shape[1] and self.merges:
            with torch.no_grad(), _full_precision(cues.device.type):
                weights = self.merge(self._in_float32(cues), keep)
        if weights is None:
            return tokens.gather(1, keep.unsqueeze(2).expand(-1, -1, tokens.shape[2]))
        with _full_precision(tokens.device.type):
            finite = tokens.float().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
            return product(weights.to(tokens.device), finite).to(tokens.dtype)

    @property
    def merges(self) -> bool:
        """Whether the language model may see other tokens than those of the encoder: the method has a ``merge``."""
        return type(self).merge is not Pruner.merge

    def _in_float32(self, cues: VisualCues) -> VisualCues:
        """The cues with those that the method reads in float32; raises ValueError when one is missing or elsewhere."""
        given = {name: getattr(cues, name).float() for name in self.needs if getattr(cues, name) is not None}
        if missing := sorted(self.needs - set(given) - OPTIONAL_CUES):
            raise ValueError(f"{type(self).__name__} needs the cue {' and '.join(missing)}, which is None")
        places = {name: str(cue.device) for name, cue in given.items()}
        if cues.image_index is not None:
            places["image_index"] = str(cues.image_index.device)
        if len(set(places.values())) > 1:
            raise ValueError(f"{type(self).__name__} reads cues that must be on one device; given: {places}")
        return replace(cues, **given)

    @abstractmethod
    def select(self, cues: VisualCues, budget: int) -> Tensor:
        """Choose ``budget`` distinct tokens of each tile, in any order.

        Args:
            cues: the declared ones in float32, values possibly not finite.
            budget: number of tokens to choose, 0 < budget < N.

        Returns:
            (B, budget) int64.
        """

    def merge(self, cues: VisualCues, keep: Tensor) -> Tensor | None:
        """Decide what each kept token is made of; a method that merges overrides this.

        Args:
            cues: as in ``select``.
            keep: (B, K) int64, ascending: what ``select`` chose, 0 < K < N.

        Returns:
            (B, K, N) float32, the share of each token in each kept one; None leaves the kept tokens as they are.
        """
        return None


def _full_precision(device_type: str) -> AbstractContextManager:
    """A context in which autocast leaves float32 products alone."""
    if torch.amp.is_autocast_available(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()
