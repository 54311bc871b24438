"""How a number of things is said."""

from __future__ import annotations


def counted(number: int, thing: str) -> str:
    """``1 pair``, ``2 pairs``: for things whose plural is made with an s."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
