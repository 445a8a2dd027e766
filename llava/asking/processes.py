"""One process, or several that torchrun or accelerate started, which share the questions of a run."""

import atexit
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from llava.records import InputError

T = TypeVar("T")

LAUNCHED = {"RANK", "LOCAL_RANK", "WORLD_SIZE"}
PATIENCE = timedelta(hours=12)
"""How long a process waits for the others: they finish far apart."""


@dataclass(frozen=True)
class Processes:
    """This process among those of a run.

    Args:
        rank: of this process, from 0; the process of rank 0 is the main one.
        count: how many there are.
        device: where this process runs its model, None if that is left to the loader.
    """

    rank: int = 0
    count: int = 1
    device: str | None = None

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def by_main(self, action: Callable[[], T]) -> T:
        """Let the main process alone do something; every process gets what it returned or raised.

        Raises:
            InputError: as ``action``, in every process.
        """
        if self.count == 1:
            return action()
        outcome: list[Any] = [None]
        if self.is_main:
            try:
                outcome = [action()]
            except InputError as error:
                outcome = [error]
        (result,) = broadcast_object_list(outcome)
        if isinstance(result, InputError):
            raise result
        return result

    def wait(self) -> None:
        """Go on when every process has come here."""
        if self.count > 1:
            PartialState().wait_for_everyone()


def join(device: str | None) -> Processes:
    """Meet the other processes of a launch; a process started by hand is alone.

    Args:
        device: what ``--device`` says; under a launcher each process gets a device of its own.

    Raises:
        InputError: a launcher and a device that all processes would share.
    """
    if not LAUNCHED <= os.environ.keys():
        return Processes(device=device)
    if device not in (None, "cpu", "cuda"):
        raise InputError(f"--device {device}: the launcher gives every process its own device; valid are cpu and cuda")
    on_cpu = device == "cpu" or not torch.cuda.is_available()
    if not torch.distributed.is_initialized():
        atexit.register(lambda: PartialState().destroy_process_group())
    state = PartialState(cpu=on_cpu, timeout=PATIENCE)
    return Processes(state.process_index, state.num_processes, str(state.device))
