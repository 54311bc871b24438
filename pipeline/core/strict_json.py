"""Upstream JSON to typed records, strictly: what the format says, or an error that names the source's URL.

A key that stands twice is refused, because two readers of such a document would see two different feeds. Unknown keys
are allowed: upstreams add some every year.
"""

from __future__ import annotations

import json
from typing import Any, Final, TypeVar

import msgspec

from .errors import UpstreamDataError

MAX_BYTES: Final = 64 << 20
"""No feed comes near: the largest recorded one (Flatcar, all channels, with its notes) has 3.6 MB."""
_HINT: Final = "the last good entries stay; see whether the source has changed its format"
T = TypeVar("T")


def decode(data: bytes, kind: type[T], url: str) -> T:
    """The document in ``data`` as ``kind``, a msgspec type.

    Raises UpstreamDataError with ``url`` for a page instead of JSON, cut or overlong input, wrong types, a key that
    stands twice, or nesting without end.
    """
    if len(data) > MAX_BYTES:
        raise UpstreamDataError(f"{url}: {len(data)} bytes are more than a feed has", hint=_HINT)
    if data.lstrip()[:1] == b"<":
        raise UpstreamDataError(f"{url}: a web page came instead of JSON", hint="look at it; a proxy may want a login")
    try:
        text = data.decode("utf-8")
        value = msgspec.json.decode(data, type=kind)
        refuse_duplicate_keys(text)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise UpstreamDataError(f"{url}: {error}", hint=_HINT) from error
    return value


def refuse_duplicate_keys(text: str) -> None:
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
