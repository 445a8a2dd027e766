"""What the language model read of a batch of prompts, held against what was to be left of them."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from llava import compat
from llava.model.late_selection import LateSelection
from llava.selecting.per_thread import PerThread

NEEDED = ("attention_mask", "position_ids", "inputs_embeds", compat.CACHE)


def count_positions(body: nn.Module) -> None:
    """Let the body of a language model note how many positions it returned, for the thread that called it."""
    body.positions_read = PerThread()
    body.register_forward_hook(_note_positions)


def _note_positions(body: nn.Module, args: tuple[Any, ...], output: Any) -> None:
    body.positions_read.value = compat.states_in(output).shape[1]


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

    def enter(self, model: nn.Module, forward: Any, given: Any) -> None:
        """Raise RuntimeError unless ``forward`` takes what it is to be given, and ``given`` embeddings are these."""
        compat.refuse_unknown(forward, type(model).__name__, NEEDED)
        found = None if given is None else given.shape[1]
        if found != self.due:
            raise compat.not_pruned(f"{found} embeddings came to {type(model).__name__} where {self.due} were made")
        model.get_model().positions_read.value = None

    def leave(self, model: nn.Module) -> None:
        """Raise RuntimeError unless the language model read what was to be left."""
        body = model.get_model()
        if self.late is not None and self.late.keep is None:
            raise compat.not_pruned(f"{type(body).__name__} did not ask which tokens its later layers see")
        read, due = body.positions_read.value, self.due
        if self.late is None and read != due:  # what a layer leaves is held against its choice where it is made
            raise compat.not_pruned(f"the language model read {read} positions where {due} were to be left")
        self.answered = True
