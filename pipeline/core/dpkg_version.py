"""Debian's order of versions (Debian Policy 5.6.12): epoch, upstream version, revision; ``~`` sorts before the end."""

from __future__ import annotations

import re
from functools import total_ordering

_PARTS = re.compile(r"([^0-9]*)([0-9]*)")


@total_ordering
class DpkgVersion:
    """A package version that compares as dpkg does. ``upstream`` is its middle part."""

    def __init__(self, text: str) -> None:
        self.text = text
        epoch, colon, rest = text.partition(":")
        if not colon:
            epoch, rest = "0", text
        upstream, dash, revision = rest.rpartition("-")
        if not dash:
            upstream, revision = rest, "0"
        self.upstream = upstream
        self._key = (int(epoch) if epoch.isdigit() else 0, _order(upstream), _order(revision))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DpkgVersion) and self._key == other._key

    def __lt__(self, other: DpkgVersion) -> bool:
        return self._key < other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"DpkgVersion({self.text!r})"


def _order(text: str) -> tuple[tuple[tuple[int, ...], int], ...]:
    """Pairs of a non-digit part and a number, a missing number being 0.

    The last pair, empty, stands for the end of the text: without it ``1.0`` would sort before ``1.0~``, its beginning.
    """
    return tuple((_letters(word), int(number or 0)) for word, number in _PARTS.findall(text))


def _letters(word: str) -> tuple[int, ...]:
    """``~`` before the end of the part (0), letters after it, signs after letters."""
    return (*(-1 if c == "~" else ord(c) if c.isalpha() else ord(c) + 256 for c in word), 0)
