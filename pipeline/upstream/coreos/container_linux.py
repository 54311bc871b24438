"""CoreOS Container Linux, retired in 2020: the archived feed of its stable channel. Off by default; hosts still run it.

The feed holds the kernel.org version only. ``uname -r`` was that plus ``-coreos`` and, where the kernel's sources had
been patched again, a revision: ``4.14.67-coreos`` on 1855.4.0 (so ``docker info`` in public reports), but
``4.14.96-coreos-r1`` on 1967.6.0 (cloudnativelabs/kube-router#370) and ``4.19.23-coreos-r1``; coreos-overlay's
coreos-kernel.eclass joins them from COREOS_SOURCE_REVISION. Nothing published tells the revision, and an image under a
guessed name is one that no host ever asks for. So a release has no ``kernel`` until policy names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ...config.source_policy import ContainerLinux
from ..records import Discovery, Findings, Get, Release, ReleaseKey, Skips, newest
from . import release_feed, version_txt
from .release_feed import Feed
from .version_txt import VersionTxt

FEED: Final = "https://coreos.com/releases/releases-stable.json"
"""Dead since the retirement: a closed network's mirror, or an archive's copy, is mapped onto it."""
RELEASES: Final = "https://stable.release.core-os.net/amd64-usr"
"""Below it a directory a release; dead as well."""
VERSION_TXT: Final = f"{RELEASES}/current/version.txt"


def parse_feed(data: bytes, url: str) -> Feed:
    """The archived feed: as Flatcar's, without channel, architectures and aliases; amd64 only.

    Raises UpstreamDataError for another document, no release at all, or a kernel that is no version.
    """
    return release_feed.parse(data, url, channels=None)


def parse_version_txt(data: bytes, url: str) -> VersionTxt:
    """The release that a directory holds, by its COREOS_ keys.

    Raises UpstreamDataError for another document.
    """
    return version_txt.parse(data, url)


def discover(get: Get, policy: ContainerLinux, known: Mapping[ReleaseKey, str]) -> Discovery:
    """The releases that policy asks for: nothing and no request unless it is enabled, else one request.

    Raises nothing for a feed that fails: it becomes a Problem.
    """
    findings = Findings("container-linux", get)
    feed = findings.read("stable", FEED, parse_feed, immutable=True) if policy.enabled else None
    if feed is None:
        return findings.done()
    skips = Skips()
    recent = set(newest([release.version for release in feed.releases], policy.keep))
    for release in feed.releases:
        later = policy.since is not None and release.date[:10] >= policy.since.isoformat()
        named = release.version in policy.kernels
        if not (later or named or release.version in recent):
            continue
        key = ("container-linux", "stable", release.version, "amd64")
        kernel = policy.kernels.get(release.version) or known.get(key)
        if kernel and not kernel.startswith(f"{release.kernel_version}-coreos"):
            skips.add(f"versions.toml says another kernel than {release.kernel_version}-coreos", f"{release.version} {kernel}")
            kernel = None
        last = release is feed.releases[-1]
        findings.add(
            Release(
                os="container-linux",
                channel="stable",
                version=release.version,
                arch="amd64",
                kernel=kernel,
                kernel_version=release.kernel_version,
                date=release.date,
                source_url=FEED,
                state=frozenset({"current"} if last else {"superseded"}),
                need=None if kernel else "revision",
            )
        )
    for version in sorted(set(policy.kernels) - {release.version for release in feed.releases}):
        skips.add("in versions.toml but not in the feed", version)
    findings.warn(*feed.warnings, *skips.warnings(FEED))
    return findings.done()
