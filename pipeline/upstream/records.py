"""The records every OS source gives, and what a source collects while it reads its feeds.

A source never reaches the network: ``get`` is handed in, reads one URL and raises NetworkError (NotFoundError where the
server says that there is no such file). What cannot be read becomes a Problem, so that the caller keeps its last good
entries of that channel; what is skipped is counted in a warning, so that no list shrinks in silence.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, Literal, TypeVar

from msgspec import Struct

from ..config.records import Arch, Os
from ..core.errors import NetworkError, PipelineError, UpstreamDataError, one_line
from ..core.versions import KernelRelease, numbers_of

State = Literal["current", "rollout", "barrier", "deadend", "superseded"]
Need = Literal["rpmdb", "packages", "revision", "retry"]
ReleaseKey = tuple[str, str, str, str]
"""(os, channel, version, arch)"""
Get = Callable[[str, bool], bytes]
"""``get(url, immutable)``: the body; ``immutable`` says that a published file never changes, so a cache may keep it."""
Parsed = TypeVar("Parsed")

_EXAMPLES: Final = 3


class Release(Struct, frozen=True, kw_only=True):
    """One release of an OS as its vendor names it.

    ``kernel`` is what ``uname -r`` prints there, None while it is not known; ``need`` then says who knows it: ``rpmdb``
    (the RPM database of the container image ``image``), ``packages`` (the release's package list, not published yet),
    ``revision`` (a person, see container_linux), ``retry`` (the server did not answer). ``kernel_version`` is the
    kernel.org version, "" while not known. ``date`` has the form ``2026-08-13T15:48:35Z``, None where no source has it.
    """

    os: Os
    channel: str
    version: str
    arch: Arch
    kernel: str | None
    kernel_version: str
    date: str | None
    source_url: str
    state: frozenset[State]
    need: Need | None = None
    image: str | None = None

    @property
    def key(self) -> ReleaseKey:
        """(os, channel, version, arch)."""
        return self.os, self.channel, self.version, self.arch


class Problem(Struct, frozen=True, kw_only=True):
    """A feed that could not be had or read: what is known of that channel stays as it was."""

    os: Os
    channel: str
    url: str
    message: str


class Discovery(Struct, frozen=True, kw_only=True):
    """What one source found: releases sorted by channel, version and arch; what it skipped; what it could not read."""

    releases: tuple[Release, ...] = ()
    warnings: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


class Skips:
    """Counts what a parser leaves out, by reason, and names the first few."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def add(self, reason: str, name: str) -> None:
        """One more thing that was left out for ``reason``."""
        self._names.setdefault(reason, []).append(one_line(name))

    def warnings(self, where: str) -> tuple[str, ...]:
        """One line a reason, with the count."""
        return tuple(
            f"{where}: {len(names)} skipped, {reason}: {', '.join(names[:_EXAMPLES])}" + (", …" if len(names) > _EXAMPLES else "")
            for reason, names in self._names.items()
        )


class Findings:
    """Collects what one source finds; ``done()`` gives the record."""

    def __init__(self, os: Os, get: Get) -> None:
        self.os: Final = os
        self._get = get
        self._releases: dict[ReleaseKey, Release] = {}
        self._warnings: list[str] = []
        self._problems: list[Problem] = []

    def read(self, channel: str, url: str, parse: Callable[[bytes, str], Parsed], *, immutable: bool = False) -> Parsed | None:
        """What ``parse(body, url)`` gives; None, with a Problem noted, where the feed cannot be had or read."""
        try:
            return parse(self._get(url, immutable), url)
        except (NetworkError, UpstreamDataError) as error:
            self.problem(channel, url, error)
            return None

    def fetch(self, url: str, *, immutable: bool = False) -> bytes:
        """The body; errors pass."""
        return self._get(url, immutable)

    def problem(self, channel: str, url: str, error: PipelineError) -> None:
        """Note that ``url`` could not be had or read."""
        self._problems.append(Problem(os=self.os, channel=channel, url=url, message=str(error)))

    def warn(self, *lines: str) -> None:
        """Note what was skipped or looks odd."""
        self._warnings += lines

    def add(self, release: Release) -> None:
        """One release; the same one from two feeds is kept once, the first wins."""
        self._releases.setdefault(release.key, release)

    def done(self) -> Discovery:
        """Everything, sorted."""
        return Discovery(
            releases=tuple(sorted(self._releases.values(), key=lambda r: (r.channel, numbers_of(r.version), r.arch))),
            warnings=tuple(dict.fromkeys(self._warnings)),
            problems=tuple(self._problems),
        )


def checked_kernel(text: str, url: str, shape: re.Pattern[str] | None = None) -> str:
    """``text`` itself when it can be what ``uname -r`` prints, and has ``shape`` where one is given.

    Raises UpstreamDataError that names ``url``: a kernel called ``$(reboot)`` must not reach a Dockerfile or a tag.
    """
    try:
        KernelRelease(text)
    except UpstreamDataError as error:
        raise UpstreamDataError(f"{url}: {error.message}", hint="the feed is refused as a whole") from error
    if shape is not None and not shape.fullmatch(text):
        raise UpstreamDataError(f"{url}: '{text}' is not a kernel of this OS", hint="the feed is refused as a whole")
    return text


def newest(versions: list[str], keep: int) -> list[str]:
    """The ``keep`` highest versions, compared number by number: 3033.3.10 is above 3033.3.9."""
    return sorted(versions, key=numbers_of, reverse=True)[:keep]
