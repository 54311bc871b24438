"""The release feed that CoreOS Container Linux had and Flatcar keeps: one JSON object, a key for each release.

The object is in string order ("3033.3.10" before "3033.3.9"), so everything here is ordered by number. Keys that are no
version (``current``, ``current-2024``) repeat a numbered entry. Versions of software are lists of strings, which may
hold "" (fleet) or two values (etcd).
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from typing import Final

from msgspec import UNSET, Struct, UnsetType

from ...core.errors import UpstreamDataError
from ...core.strict_json import decode
from ...core.versions import numbers_of
from ..records import Skips

_VERSION: Final = re.compile(r"[0-9]{1,6}\.[0-9]{1,4}\.[0-9]{1,4}")
_ALIAS: Final = re.compile(r"current(-20[0-9]{2})?")
_KERNEL: Final = re.compile(r"[0-9]+\.[0-9]+(\.[0-9]+)?(-rc[0-9]+)?")
_HINT: Final = "the feed is refused as a whole; the last good entries stay"


class _Entry(Struct):
    release_date: str
    major_software: dict[str, list[str]]
    channel: str | UnsetType = UNSET
    architectures: list[str] | UnsetType = UNSET


class FeedRelease(Struct, frozen=True, kw_only=True):
    """One release of the feed.

    ``kernel_version`` is kernel.org's; ``channel`` "" and ``arches`` empty where the feed has no such field (Container Linux).
    """

    version: str
    channel: str
    arches: tuple[str, ...]
    kernel_version: str
    date: str


class Feed(Struct, frozen=True, kw_only=True):
    """``releases`` by rising version; ``aliases``: key such as ``current-2024`` to the release it repeats."""

    releases: tuple[FeedRelease, ...]
    aliases: dict[str, str]
    warnings: tuple[str, ...] = ()


def parse(data: bytes, url: str, *, channels: frozenset[str] | None) -> Feed:
    """The feed in ``data``; ``channels`` are those that may be named, None for a feed without channels.

    Releases without a kernel, with several, or of another channel are counted in ``warnings``.
    Raises UpstreamDataError for another document, no release at all, or a kernel that is no version.
    """
    entries = decode(data, dict[str, _Entry], url)
    skips = Skips()
    releases: list[FeedRelease] = []
    numbered: dict[tuple[object, ...], list[str]] = {}
    for key, entry in entries.items():
        if not _VERSION.fullmatch(key):
            if not _ALIAS.fullmatch(key):
                skips.add("not a version", key)
            continue
        numbered.setdefault(_content(entry), []).append(key)
        channel, arches = _place(key, entry, url, channels)
        kernels = [kernel for kernel in entry.major_software.get("kernel", []) if kernel]
        if len(kernels) != 1:
            skips.add("not exactly one kernel named", key)
        elif channels is not None and channel not in channels:
            skips.add("of another channel", f"{key} {channel}")
        else:
            if not _KERNEL.fullmatch(kernels[0]) or len(kernels[0]) > 40:
                raise UpstreamDataError(f"{url}: {key} has '{kernels[0]}' as its kernel", hint=_HINT)
            date = _date(entry.release_date, key, url)
            releases.append(FeedRelease(version=key, channel=channel, arches=arches, kernel_version=kernels[0], date=date))
    if not releases:
        raise UpstreamDataError(f"{url}: no release with a kernel to be found", hint=_HINT)
    aliases = _aliases({k: e for k, e in entries.items() if _ALIAS.fullmatch(k)}, numbered, skips)
    releases.sort(key=lambda r: numbers_of(r.version))
    return Feed(releases=tuple(releases), aliases=aliases, warnings=skips.warnings(url))


def _place(key: str, entry: _Entry, url: str, channels: frozenset[str] | None) -> tuple[str, tuple[str, ...]]:
    if channels is None:
        return "", ()
    if entry.channel is UNSET or entry.architectures is UNSET:
        raise UpstreamDataError(f"{url}: {key} has no channel or no architectures", hint=_HINT)
    return entry.channel, tuple(entry.architectures)


def _content(entry: _Entry) -> tuple[object, ...]:
    software = tuple(sorted((name, tuple(values)) for name, values in entry.major_software.items()))
    arches = None if entry.architectures is UNSET else tuple(entry.architectures)
    return entry.release_date, entry.channel, arches, software


def _aliases(aliases: Mapping[str, _Entry], numbered: Mapping[tuple[object, ...], list[str]], skips: Skips) -> dict[str, str]:
    """Which release each alias repeats; an alias that repeats none, or could be two, says nothing."""
    found: dict[str, str] = {}
    for key, entry in aliases.items():
        same = numbered.get(_content(entry), [])
        if len(same) == 1:
            found[key] = same[0]
        else:
            skips.add("an alias that repeats no one release", key)
    return found


def _date(text: str, key: str, url: str) -> str:
    try:
        moment = datetime.datetime.strptime(text, "%Y-%m-%d %H:%M:%S %z").astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        moment = None
    if moment is None or not 2000 <= moment.year < 2100:
        raise UpstreamDataError(f"{url}: {key} has '{text}' as its date", hint=_HINT)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
