"""Flatcar Container Linux: releases and kernels from the channels' feeds; the release servers know newer ones first.

``uname -r`` is the kernel.org version plus ``-flatcar``; a revision of the ebuild is no part of it (flatcar/scripts,
coreos-kernel.eclass: "$KV_FULL would not include such a suffix"). Builds go by kernel and headers: the compiler and the
configuration differ between releases of one kernel.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Final

from ...config.records import Arch
from ...config.source_policy import ENDED, Flatcar
from ...core.errors import NetworkError, NotFoundError, UpstreamDataError
from ...core.versions import numbers_of
from ..records import Discovery, Findings, Get, Need, Release, ReleaseKey, Skips, State, checked_kernel, newest
from . import release_feed, version_txt
from .release_feed import Feed, FeedRelease
from .version_txt import VersionTxt

FEEDS: Final = "https://www.flatcar.org/releases-json"
CHANNELS: Final = frozenset({"stable", "beta", "alpha", "lts", "edge"})
PACKAGES: Final = "flatcar_production_image_packages.txt"
_ARCHES: Final[tuple[Arch, ...]] = ("amd64", "arm64")
_PACKAGE: Final = re.compile(
    r"sys-kernel/coreos-kernel-([0-9]+\.[0-9]+(?:\.[0-9]+)?)(?:_(rc[0-9]+))?(?:-r[0-9]+)?(?:::[A-Za-z0-9_-]+)?"
)


def feed_url(channel: str) -> str:
    """The feed of one channel (``stable``, ``lts``, ``lts-2024``), or of all (``""``)."""
    return f"{FEEDS}/releases-{channel}.json" if channel else f"{FEEDS}/releases.json"


def file_url(channel: str, arch: Arch, version: str, name: str) -> str:
    """A file of a release's directory; ``version`` may be ``current``, or ``current-2024`` for an LTS line."""
    return f"https://{channel.partition('-')[0]}.release.flatcar-linux.net/{arch}-usr/{version}/{name}"


def uname(kernel_version: str) -> str:
    """What ``uname -r`` prints on a release with that kernel: ``6.12.102-flatcar``."""
    return f"{kernel_version}-flatcar"


def parse_feed(data: bytes, url: str, channel: str = "") -> Feed:
    """The feed of one channel (``lts-2024`` is of channel ``lts``), or of all.

    Raises UpstreamDataError for another document, no release of that channel, or a kernel that is no version.
    """
    feed = release_feed.parse(data, url, channels=frozenset({channel.partition("-")[0]}) if channel else CHANNELS)
    for release in feed.releases:
        checked_kernel(uname(release.kernel_version), url)
    return feed


def parse_version_txt(data: bytes, url: str) -> VersionTxt:
    """The release that a directory holds.

    Raises UpstreamDataError for another document.
    """
    return version_txt.parse(data, url)


def parse_packages(data: bytes, url: str) -> str:
    """The kernel (``uname -r``) from a release's package list: its line ``sys-kernel/coreos-kernel-6.12.102::…``.

    The name of the file and the form of its lines are driverkit's (flatcar.go).
    Raises UpstreamDataError where there is not exactly one such line.
    """
    text = data.decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines() if line.startswith("sys-kernel/coreos-kernel-")]
    match = _PACKAGE.fullmatch(lines[0]) if len(lines) == 1 else None
    if not match:
        raise UpstreamDataError(
            f"{url}: not one package sys-kernel/coreos-kernel with a version", hint="see whether the list has changed"
        )
    return checked_kernel(uname(match[1] + (f"-{match[2]}" if match[2] else "")), url)


def line_of(release: FeedRelease, feed: Feed) -> str:
    """The channel, or for LTS the line: ``lts-2024``, by the alias of that year whose first number is the same.

    A line without an alias yet is named by its first number: ``lts-4500``.
    """
    if release.channel != "lts":
        return release.channel
    first = release.version.partition(".")[0]
    years = (a.removeprefix("current-") for a, v in feed.aliases.items() if "-" in a and v.partition(".")[0] == first)
    return f"lts-{next(years, first)}"


def disagreement(feed: Feed, served: VersionTxt, url: str) -> str | None:
    """What to say where a release server and the feed name different releases as the newest; they do for hours."""
    latest = feed.releases[-1].version
    if served.suffix:
        return f"{url}: {served.version}{served.suffix} is a nightly, not a release"
    if served.version == latest:
        return None
    order = "not yet" if numbers_of(served.version) > numbers_of(latest) else "already"
    return f"{url}: the server has {served.version}; the feed has {order} gone on: its newest is {latest}"


def wanted(policy: Flatcar, channel: str, feed: Feed) -> dict[tuple[FeedRelease, Arch], frozenset[State]]:
    """The releases of one feed that policy asks for, with their state; ended LTS lines only where they are named."""
    current = set(feed.aliases.values())
    lines: dict[tuple[str, Arch], list[FeedRelease]] = {}
    for release in feed.releases:
        line = line_of(release, feed)
        if line in ENDED and line != channel:
            continue
        for arch in policy.arches:
            if arch in release.arches:
                lines.setdefault((line, arch), []).append(release)
    chosen: dict[tuple[FeedRelease, Arch], frozenset[State]] = {}
    for (_, arch), releases in lines.items():
        recent = set(newest([r.version for r in releases], policy.keep))
        for release in releases:
            now: State = "current" if release.version in current else "superseded"
            later = policy.since is not None and release.date[:10] >= policy.since.isoformat()
            if now == "current" or later or release.version in recent:
                chosen[release, arch] = frozenset({now})
    return chosen


def discover(get: Get, policy: Flatcar, known: Mapping[ReleaseKey, str]) -> Discovery:
    """All releases that policy asks for: one request a channel, and with ``ahead`` one a channel and architecture.

    ``known`` maps (os, channel, version, arch) to the kernel found before. Raises nothing for a feed that fails: it
    becomes a Problem, and what the other feeds say is kept.
    """
    findings = Findings("flatcar", get)
    for channel in dict.fromkeys(policy.channels):
        url = feed_url(channel)
        feed = findings.read(channel, url, partial(parse_feed, channel=channel))
        if feed is None:
            continue
        skips = Skips()
        for release in feed.releases:
            for name in release.arches:
                if name not in _ARCHES:
                    skips.add("unknown architecture", f"{release.version} {name}")
        findings.warn(*feed.warnings, *skips.warnings(url))
        for (release, arch), state in wanted(policy, channel, feed).items():
            kernel = uname(release.kernel_version)
            _add(findings, release.channel, release.version, arch, release.date, url, kernel, state)
        if policy.ahead and channel not in ENDED:
            for arch in policy.arches:
                if arch in feed.releases[-1].arches:
                    _look_ahead(findings, channel, arch, feed, known)
    return findings.done()


def _look_ahead(findings: Findings, channel: str, arch: Arch, feed: Feed, known: Mapping[ReleaseKey, str]) -> None:
    """A release whose files are up while the feed does not list it yet."""
    url = file_url(channel, arch, channel.replace("lts", "current", 1) if "-" in channel else "current", "version.txt")
    served = findings.read(channel, url, parse_version_txt)
    if served is None:
        return
    if line := disagreement(feed, served, url):
        findings.warn(line)
    if served.suffix or numbers_of(served.version) <= numbers_of(feed.releases[-1].version):
        return
    packages, name = file_url(channel, arch, served.version, PACKAGES), channel.partition("-")[0]
    kernel, need = known.get((findings.os, name, served.version, arch)), None
    if kernel is None:
        kernel, need = _from_packages(findings, channel, packages)
    _add(findings, name, served.version, arch, served.date, packages, kernel, frozenset({"current"}), need)


def _from_packages(findings: Findings, channel: str, url: str) -> tuple[str | None, Need | None]:
    try:
        return parse_packages(findings.fetch(url, immutable=True), url), None
    except NotFoundError:
        return None, "packages"
    except (NetworkError, UpstreamDataError) as error:
        findings.problem(channel, url, error)
        return None, "retry"


def _add(
    findings: Findings,
    channel: str,
    version: str,
    arch: Arch,
    date: str | None,
    url: str,
    kernel: str | None,
    state: frozenset[State],
    need: Need | None = None,
) -> None:
    findings.add(
        Release(
            os="flatcar",
            channel=channel,
            version=version,
            arch=arch,
            kernel=kernel,
            kernel_version=kernel.removesuffix("-flatcar") if kernel else "",
            date=date,
            source_url=url,
            state=state,
            need=need,
        )
    )
