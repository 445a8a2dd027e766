"""Where the time of a call goes: the image side, the choice of tokens, prefill and decoding."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

STAGES = ("vision", "projector", "selection", "prefill", "decode")


class Stopwatch:
    """Adds up how long the stages of a model's calls take while it is attached, as in ``with Stopwatch(model)``.

    ``vision`` is the tower with the cues that a pruner asks for, CLIP's text side among them; ``prefill`` the language
    model's first pass of a call and ``decode`` its later ones. A stage within another counts for itself alone, so the
    stages never sum to more than the time that passed. Devices are synchronised wherever a stage begins or ends. Calls
    of the thread that attached it are timed, no other's.

    Args:
        model: a LLaVA model. Nothing of it changes: while attached, its ``stopwatch`` is this one and two hooks are
            registered on it.
    """

    def __init__(self, model: Any):
        self.model = model
        devices = {parameter.device for parameter in model.parameters()}
        self.devices = [device for device in devices if device.type not in ("cpu", "meta")]
        self.seconds: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self._open: list[str] = []
        self._since = 0.0
        self._hooks: list[Any] = []

    def __enter__(self) -> "Stopwatch":
        self.model.stopwatch = self
        self._hooks = [
            self.model.register_forward_pre_hook(lambda *_: self._begin_pass()),
            self.model.register_forward_hook(lambda *_: self._end_pass(), always_call=True),
        ]
        return self

    def __exit__(self, *_: object) -> None:
        self.model.stopwatch = None
        for hook in self._hooks:
            hook.remove()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what runs inside as a stage."""
        self._begin(name)
        try:
            yield
        finally:
            self._end()

    def lap(self) -> tuple[dict[str, float], int]:
        """Return the milliseconds of every stage since the last lap, and the number of decoding steps; start anew."""
        taken = {name: 1000 * self.seconds[name] for name in STAGES}, self.calls["decode"]
        self.seconds.clear()
        self.calls.clear()
        return taken

    def _begin_pass(self) -> None:
        if self.model.stopwatch is self:  # another thread's pass is not timed
            self._begin("decode" if self.calls["prefill"] else "prefill")

    def _end_pass(self) -> None:
        if self.model.stopwatch is self:
            self._end()

    def _begin(self, name: str) -> None:
        self._tick()
        self.calls[name] += 1
        self._open.append(name)

    def _end(self) -> None:
        self._tick()
        self._open.pop()

    def _tick(self) -> None:
        """Give the time since the last tick to the innermost open stage."""
        for device in self.devices:
            torch.get_device_module(device).synchronize(device)
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now
