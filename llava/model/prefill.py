"""What the language model read of a batch of prompts, held against what was to be left of them."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import Cache

from llava import compat
from llava.model.late_selection import LateSelection
from llava.selecting.per_thread import PerThread
from llava.selecting.record import PruneRecord

NEEDED = ("inputs_embeds", *compat.SHORTENED_BY)


@dataclass
class Read:
    """How many positions the body of a language model had in a call, padding included; None where none were found."""

    given: int | None = None  # embeddings
    by_layers: int | None = None  # states that its first layer was called with
    returned: int | None = None


def count_positions(body: Any) -> None:
    """Let the body of a language model note how many positions it read, for the thread that called it."""
    body.positions_read = PerThread(Read)
    body.layers[0].register_forward_hook(partial(_note_states, body.positions_read), with_kwargs=True)
    body.register_forward_hook(_note_positions, with_kwargs=True)


def _note_states(
    read: PerThread[Read], layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
) -> None:
    read.value.by_layers = _length(args[0] if args else kwargs.get("hidden_states"))


def _note_positions(body: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
    given = compat.arguments_of(body, args, kwargs)
    read = body.positions_read.value
    read.given, read.returned = _length(given.get("inputs_embeds")), compat.positions_in(output)


def _counted(cache: Cache | None) -> bool:
    """Whether a cache knows its length without reading it back from a device, as a static one does not."""
    return cache is not None and not cache.is_compileable


def _length(states: Any) -> int | None:
    return states.shape[1] if isinstance(states, Tensor) else None


@dataclass
class Prefill:
    """A batch of prompts from which visual tokens are dropped, before the language model or inside it.

    Args:
        due: positions of the batch that the language model is given, padding included.
        late: what chooses inside the language model, if anything does.
    """

    due: int
    late: LateSelection | None = None
    answered: bool = False
    cached: int = 0  # positions that the cache holds before it is filled with these

    @classmethod
    def of(cls, embeds: Tensor, record: PruneRecord | None, late: LateSelection | None) -> "Prefill | None":
        """What is due of prompts just made, (B, L, D); None where no visual token of them is dropped."""
        dropped = record is not None and sum(record.visual_tokens) < sum(record.tokens_before)
        return cls(embeds.shape[1], late) if dropped or late is not None else None

    def enter(self, model: Any, forward: Any, given: Any, cache: Any) -> None:
        """Raise RuntimeError unless ``forward`` takes what it is to be given, and ``given`` embeddings are these."""
        compat.refuse_unknown(forward, type(model).__name__, NEEDED)
        compat.refuse_unknown(model.get_model().forward, type(model.get_model()).__name__, NEEDED)
        found = None if given is None else given.shape[1]
        if found != self.due:
            raise compat.not_pruned(f"{found} embeddings came to {type(model).__name__} where {self.due} were made")
        model.get_model().positions_read.value = Read()
        self.cached = cache.get_seq_length() if _counted(cache) else 0

    def leave(self, model: Any, cache: Any, replayed: bool = False) -> None:
        """Raise RuntimeError unless the language model read, and put into ``cache``, what was to be left.

        Of a pass that was ``replayed``, with embeddings of its form, no layer can say what it read.
        """
        if not replayed:
            self._check_read(model.get_model())
        if _counted(cache) and not model.training:  # checkpointing fills none
            cached = cache.get_seq_length() - self.cached
            if cached != self.due:
                raise compat.not_pruned(
                    f"the language model cached {cached} positions where {self.due} were to be left"
                )
        self.answered = True

    def _check_read(self, body: Any) -> None:
        if self.late is not None and self.late.decision is None:
            raise compat.not_pruned(f"{type(body).__name__} did not ask which tokens its later layers see")
        read, due = body.positions_read.value, self.due
        if read.given != due:
            raise compat.not_pruned(f"{type(body).__name__} was not given the {due} embeddings that were to be left")
        left = read.returned if self.late is None else due  # a layer holds what it leaves against its own choice
        if (read.by_layers, left) != (due, due):
            raise compat.not_pruned(
                f"the language model read {read.by_layers} positions and returned {left} where {due} were to be left"
            )
