"""Values that are computed at their first use: once, however many threads ask at the same time.

``functools.cached_property`` has no lock since Python 3.12: each thread that asks meanwhile computes a value of its own, and
two workshops exclude nobody.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")


class Locks(dict[str, threading.Lock]):
    """A lock for each name, made when it is first asked for: all threads get the same."""

    def __missing__(self, name: str) -> threading.Lock:
        return self.setdefault(name, threading.Lock())  # the first that comes stays; the interpreter does that in one step


class _Turn:
    """Who computes a value now, and how many threads are here for it."""

    __slots__ = ("lock", "threads")

    def __init__(self) -> None:
        self.lock, self.threads = threading.RLock(), 0


_turns: dict[tuple[int, str], _Turn] = {}
"""Of the values that are being computed, by object and name: an object has no lock of its own, which could not be copied."""
_guard = threading.Lock()


class lazy(Generic[T]):  # noqa: N801 - a decorator
    """A method as an attribute that is computed once an object. Where that raises, nothing is kept: who asks next tries anew.

    The value lies in the object's ``__dict__``, also of a frozen one; from then on it costs what any attribute does. Only who
    needs that very value waits for it, so that no two threads wait for each other unless values need each other.
    """

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make, self._name, self.__doc__ = make, make.__name__, make.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        if not owner.__dictoffset__:
            raise TypeError(f"{owner.__name__} has no room for '{name}': its objects have no __dict__")
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> lazy[T]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> T: ...
    def __get__(self, instance: object | None, owner: type | None = None) -> lazy[T] | T:
        """The value. Python asks only where ``__dict__`` has none yet."""
        if instance is None:
            return self
        held, key = instance.__dict__, (id(instance), self._name)
        with _guard:
            if (turn := _turns.get(key)) is None:
                turn = _turns[key] = _Turn()
            turn.threads += 1
        try:
            with turn.lock:
                if self._name not in held:
                    held[self._name] = self._make(instance)
                value: T = held[self._name]
                return value
        finally:
            with _guard:
                turn.threads -= 1
                if not turn.threads:
                    del _turns[key]
