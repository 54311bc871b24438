"""What the headers of a file on its way in say: pure functions, for ``fetch`` alone.

Formats: RFC 9110 (Content-Range 14.4, Content-Encoding 8.4, Location 10.2.2).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import urljoin, urlsplit, urlunsplit

from .http import is_loopback

_PACKED: Final = (".gz", ".tgz", ".xz", ".bz2", ".zst", ".lz4", ".zip", ".deb", ".rpm")
_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")


class UndecodableError(Exception):
    """A body that cannot be decoded. Never leaves ``fetch``."""


def packed(url: str) -> bool:
    """True for a file that is compressed itself: servers send ``x.gz`` as encoded content; it must stay so."""
    return _path(url).endswith(_PACKED)


def decoded(chunks: Iterator[bytes], coding: str, limit: int) -> Iterator[bytes]:
    """``chunks`` without their Content-Encoding; at most ``limit`` + 1 bytes, so that a bomb does not go off.

    Raises UndecodableError.
    """
    coding = coding.strip().lower()
    if coding in ("identity", ""):
        yield from chunks
        return
    if coding not in ("gzip", "x-gzip"):
        raise UndecodableError(f"sent as '{coding}', which was not asked for")
    unpacker = zlib.decompressobj(wbits=31)
    left = limit + 1
    try:
        for chunk in chunks:
            data = unpacker.decompress(chunk, left)
            left -= len(data)
            yield data
            if left <= 0:
                return
    except zlib.error as error:
        raise UndecodableError(f"not the gzip it says it is ({error})") from error
    if not unpacker.eof:
        raise UndecodableError("gzip body cut off")


def continues(headers: Mapping[str, str], start: int, size: int | None = None) -> bool:
    """True where a 206 holds the bytes from ``start`` on of a file of ``size`` bytes (None: of any number)."""
    found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
    return found is not None and int(found[1]) == start and (size is None or found[3] in ("*", str(size)))


def web_page(url: str, headers: Mapping[str, str]) -> bool:
    """True for HTML where a file was asked for: captive portals and some vendors answer 200 to everything."""
    name = _path(url).rsplit("/", 1)[-1]
    html = headers.get("Content-Type", "").lower().startswith("text/html")
    return html and "." in name and not name.endswith((".html", ".htm"))


def redirected(current: str, location: str) -> str:
    """The address that ``Location`` leads to from ``current``.

    Raises ValueError, which says why not, for what is not http or https, and for https down to http (except loopback).
    """
    target = urljoin(current, location.encode("latin-1", "replace").decode("utf-8", "replace"))
    old, new = urlsplit(current), urlsplit(target)
    if new.scheme not in ("http", "https") or not new.hostname:
        raise ValueError(f"redirect to {shown(target)}, which is no http address")
    if old.scheme == "https" and new.scheme == "http" and not is_loopback(new.hostname):
        raise ValueError(f"redirect from https down to {shown(target)}")
    return urlunsplit(new._replace(fragment=""))


def same_server(one: str, other: str) -> bool:
    """True where both addresses name the same scheme, host and port."""
    return urlsplit(one)[:2] == urlsplit(other)[:2]


def shown(url: str) -> str:
    """``url`` without the password a mirror's address may hold."""
    return re.sub(r"^([a-z]+://)[^/@]*@", r"\1", url)


def _path(url: str) -> str:
    return re.split("[?#]", url, maxsplit=1)[0]
