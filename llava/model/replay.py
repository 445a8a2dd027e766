"""Functions of tensors, captured in CUDA graphs and replayed: many launches become one."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

T = TypeVar("T")
Outputs = tuple[Tensor | None, ...]

CAPTURING = threading.Lock()  # one thread at a time: a capture claims the device's allocator
GRAPHS = 8  # captured ones that a model keeps; each holds the memory of what it computes
FORMS = 256  # forms that are known to have been seen


class Recent(Generic[T]):
    """The values last asked for, as many as ``limit``; a copy starts anew. Safe to use from several threads."""

    def __init__(self, limit: int):
        self.limit = limit
        self._values: OrderedDict[Hashable, T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of a key, made if there is none; of a key that cannot be hashed it is made each time."""
        try:
            hash(key)
        except TypeError:
            return make()
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        self.put(key, value := make())
        return value

    def __contains__(self, key: Hashable) -> bool:
        return key in self._values

    def __len__(self) -> int:
        return len(self._values)

    def put(self, key: Hashable, value: T) -> None:
        """Set a value, and forget the oldest of too many."""
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self.limit:
                self._values.popitem(last=False)

    def __deepcopy__(self, memo: dict[int, object]) -> "Recent[T]":
        return type(self)(self.limit)

    def __reduce__(self) -> tuple:
        return type(self), (self.limit,)


class Graph:
    """One captured function. What it is given is copied into its own tensors, what it returns out of them.

    Args:
        function: of tensors by name; reads nothing back and calls nothing but what was called once before.
        arguments: on a CUDA device, of the form in which it will be called.
        pool: of memory, shared by graphs of which one runs at a time.
        copied: False where ``arguments`` stay where they are and are filled by the caller.

    Raises:
        RuntimeError: it cannot be captured.
    """

    def __init__(
        self, function: Callable[..., Outputs], arguments: Mapping[str, Tensor], pool: Any = None, copied: bool = True
    ):
        self.graph, self.inputs = torch.cuda.CUDAGraph(), {}
        device = next(iter(arguments.values())).device
        with torch.inference_mode(False), torch.no_grad(), torch.cuda.device(device):
            self.inputs = {name: value.clone() if copied else value for name, value in arguments.items()}
            self.done = torch.cuda.Event()
            before, stream = torch.cuda.current_stream(), torch.cuda.Stream()
            stream.wait_stream(before)
            with torch.cuda.stream(stream):
                function(**self.inputs)  # what a stream needs, and what libraries do first, is done outside of a graph
                stream.synchronize()
                with CAPTURING:
                    self.outputs = self._capture(function, pool)
            before.wait_stream(stream)
            self.done.record()

    def _capture(self, function: Callable[..., Outputs], pool: Any) -> Outputs:
        self.graph.capture_begin(pool=pool, capture_error_mode="thread_local")
        try:
            outputs = function(**self.inputs)
        except BaseException:
            try:
                self.graph.capture_end()
            except RuntimeError:  # says again that the capture failed
                pass
            raise
        self.graph.capture_end()
        return outputs

    def __call__(self, arguments: Mapping[str, Tensor]) -> Outputs:
        """Replay, on the current stream; one thread at a time."""
        self.done.wait()  # another stream may have replayed it last
        for name, value in arguments.items():
            self.inputs[name].copy_(value, non_blocking=True)
        self.graph.replay()
        outputs = tuple(None if each is None else each.clone() for each in self.outputs)
        self.done.record()
        return outputs


class Replays:
    """Calls functions of tensors; one that is called again in the same form is captured, and replayed from then on.

    A function that cannot be captured is called as it is, which is told once. Safe to use from several threads.

    Args:
        capture: makes a graph, as ``Graph`` does.
        limit: of graphs that are kept.
        calls: of a form before it is captured.
        replaces: whether a new form takes the place of the one that was not called for longest; else the first stay.
    """

    def __init__(
        self,
        capture: Callable[..., Callable[[Mapping[str, Tensor]], Outputs]] = Graph,
        limit: int = GRAPHS,
        calls: int = 1,
        replaces: bool = True,
    ):
        self._settings = (capture, limit, calls, replaces)
        self._graphs: Recent[Any] = Recent(limit)
        self._seen: Recent[int | None] = Recent(FORMS)  # how often; None of what cannot be captured
        self._lock = threading.Lock()
        self._pool: Any = None

    def __call__(self, key: Hashable, function: Callable[..., Outputs], arguments: Mapping[str, Tensor]) -> Outputs:
        """Call a function.

        Args:
            key: of what it computes; two functions of one key are the same.
            function: of tensors by name.
            arguments: on one CUDA device.

        Returns:
            What the function returns; tensors that no later call changes.
        """
        found = self.replayed(key, function, arguments)
        return function(**arguments) if found is None else found

    def replayed(
        self, key: Hashable, function: Callable[..., Outputs], arguments: Mapping[str, Tensor]
    ) -> Outputs | None:
        """As a call, but None where nothing is replayed."""
        form = tuple((name, tuple(value.shape), value.dtype, value.device) for name, value in arguments.items())
        with self._lock:
            graph = self._graph((key, form), function, arguments)
            return None if graph is None else graph(arguments)

    def _graph(self, form: Hashable, function: Callable[..., Outputs], arguments: Mapping[str, Tensor]) -> Any:
        """The graph of a form that was seen before, None of another and of one that cannot be captured."""
        _, limit, calls, replaces = self._settings
        seen = self._seen.get(form, lambda: 0)
        if seen is None:
            return None
        if seen < calls:
            self._seen.put(form, seen + 1)
            return None
        if form not in self._graphs and len(self._graphs) == limit and not replaces:
            return None
        return self._graphs.get(form, lambda: self._captured(form, function, arguments))

    def _captured(self, form: Hashable, function: Callable[..., Outputs], arguments: Mapping[str, Tensor]) -> Any:
        capture = self._settings[0]
        try:
            if self._pool is None and capture is Graph:
                self._pool = torch.cuda.graph_pool_handle()
            return capture(function, arguments, self._pool)
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            logger.warning("not captured in a CUDA graph, so it runs launch by launch: %s", reason)
            self._seen.put(form, None)
            return None

    def __deepcopy__(self, memo: dict[int, object]) -> "Replays":
        return type(self)(*self._settings)

    def __reduce__(self) -> tuple:
        return type(self), self._settings
