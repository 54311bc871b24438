"""JSON in which a key stands twice: two readers of such a document would see two different ones, so it is refused."""

from __future__ import annotations

import json
from typing import Any, Final


def refuse_twins(text: str) -> None:
    """Raise ValueError where a key stands twice in one object of the JSON document ``text``."""
    _decoder.decode(text)


def _pairs(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise ValueError(f"the key '{key}' stands twice in one object")
        seen.add(key)


# Numbers are not looked at here: int("9" * 5000) would raise for a document that msgspec found sound.
_decoder: Final = json.JSONDecoder(object_pairs_hook=_pairs, parse_int=len, parse_float=len)
