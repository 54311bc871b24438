"""Texts for thousands of kernels out of one rendering: what varies with the kernel is left open and filled in.

A template is rendered once for each driver and form of kernel with a stand-in for the kernel, whose values can be printed
and nothing else. A template (or the code that prepares its values) that compares, measures, cuts or changes such a value
gets an error here, and the caller renders plainly for every kernel; so a filled text is what plain rendering gives, byte
for byte, or there is none. At 10 000 pairs that is a third of a second instead of three.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

_OPEN: Final = "\0\u2039-_.~+:/=@ aZ&<>'\""
"""Has what filters change: either case, separators, quotes, a character outside ASCII. A changed mark is not found again."""
_CLOSE: Final = "\u203a\0"
_MARK: Final = re.compile(re.escape(_OPEN) + "(.*?)" + re.escape(_CLOSE))
_FIXED: Final = frozenset({"os", "arch", "toolchain", "form"})
"""Read as they are, since one skeleton serves one value of each."""


class Looked(Exception):
    """A value that is still open was used for more than printing."""


class Hole:
    """A value that is still open. ``str()`` and ``format()`` without a specification print its mark."""

    __slots__ = ("_mark",)

    def __init__(self, path: str) -> None:
        self._mark = f"{_OPEN}{path}{_CLOSE}"

    def __str__(self) -> str:
        return self._mark

    def __format__(self, specification: str) -> str:
        if specification:
            raise Looked(specification)
        return self._mark

    def _looked(self, *_: object) -> NoReturn:
        raise Looked(self._mark)

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __hash__ = __bool__ = _looked
    __len__ = __iter__ = __getitem__ = __contains__ = __add__ = __radd__ = __mul__ = __mod__ = __int__ = __repr__ = _looked


class StandIn:
    """Looks like ``real``: its texts and numbers are holes, its lists of records lists of stand-ins of the same length."""

    def __init__(self, real: Any, path: str) -> None:
        self.__dict__["_real"], self.__dict__["_path"] = real, path

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._real, name)
        path = f"{self._path}.{name}"
        if name in _FIXED:
            return value
        if isinstance(value, str) or type(value) is int:
            return Hole(path)
        if isinstance(value, tuple) and name in ("headers", "image"):
            return tuple(StandIn(item, f"{path}.{number}") for number, item in enumerate(value))
        raise Looked(path)


class Skeleton:
    """A text with holes in it, ready to be filled many times."""

    def __init__(self, text: str) -> None:
        """Raises Looked where a mark was changed on its way into ``text``."""
        self._parts = _MARK.split(text)
        paths = list(dict.fromkeys(self._parts[1::2]))
        if any("\0" in part or "\u2039" in part or "\u203a" in part for part in (*self._parts[::2], *paths)):
            raise Looked("a mark was changed")
        self._getters = [_getter(path) for path in paths]
        self._slots = [(slot, paths.index(self._parts[slot])) for slot in range(1, len(self._parts), 2)]

    def fill(self, roots: Mapping[str, Any]) -> str:
        """The text with each hole's value read out of ``roots``, named as the stand-ins were."""
        values = [str(get(roots)) for get in self._getters]
        parts = self._parts.copy()
        for slot, number in self._slots:
            parts[slot] = values[number]
        return "".join(parts)


def _getter(path: str) -> Callable[[Mapping[str, Any]], Any]:
    root, *names = path.split(".")

    def get(roots: Mapping[str, Any]) -> Any:
        value = roots[root]
        for name in names:
            value = value[int(name)] if name.isdigit() else getattr(value, name)
        return value

    return get
