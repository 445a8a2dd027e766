"""What belongs to one call of a model, kept beside the model without being shared by the threads that call it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar, overload

from llava import compat

T = TypeVar("T")


class PerThread(Generic[T]):
    """A value of its own for every thread, made by ``make`` when a thread first asks for it; None without ``make``.

    A copy of it, or of the model that holds it, starts anew: what a call knows is about the model that was called.
    """

    @overload
    def __init__(self: "PerThread[Any]", make: None = None) -> None: ...

    @overload
    def __init__(self, make: Callable[[], T]) -> None: ...

    def __init__(self, make: Callable[[], Any] | None = None) -> None:
        self._make: Callable[[], Any] = _nothing if make is None else make
        self._local = threading.local()

    @property
    def value(self) -> T:
        """This thread's value."""
        try:
            return self._local.value
        except AttributeError:
            self._local.value = self._make()
            return self._local.value

    @value.setter
    def value(self, value: T) -> None:
        self._local.value = value

    def __deepcopy__(self, memo: dict[int, object]) -> "PerThread[T]":
        return type(self)(self._make)

    def __reduce__(self) -> tuple:
        return type(self), (self._make,)


def _nothing() -> None:
    """What a thread begins with that is given nothing."""


class Inherited(Generic[T]):
    """A value that the thread which made it sets for all, and every other thread for itself alone."""

    def __init__(self, value: T):
        self._value, self._owner = value, threading.get_ident()
        self._own: PerThread[list[T]] = PerThread(list)  # empty where a thread set none

    @property
    def value(self) -> T:
        """This thread's value."""
        return self._own.value[0] if self._own.value else self._value

    @value.setter
    def value(self, value: T) -> None:
        if threading.get_ident() == self._owner:
            self._value = value
        else:
            self._own.value = [value]


@contextmanager
def unchanged(name: str, before: Any, now: Callable[[], Any]) -> Iterator[None]:
    """Refuse the answer of a call during which another thread changed what all of its passes need.

    Args:
        name: of what that is, for the error.
        before: what it was when the call began.
        now: returns what it is.

    Raises:
        RuntimeError: it was changed, whatever the call came to.
    """
    failed = None
    try:
        yield
    except Exception as error:
        if now() is before:
            raise
        failed = error
    if now() is not before:
        raise compat.not_pruned(f"{name} changed while it was under way, in another thread") from failed
