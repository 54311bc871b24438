"""Fedora CoreOS as a source: which releases policy wants, and the kernel of each.

Only stream metadata is a promised API (fedora-coreos-tracker, Design.md); the index calls itself internal tooling. So a
404 or a new shape there is a source that is not available, never "no releases". The kernel is in none of the feeds: it
comes from a build's ``commitmeta.json``, one request per release and architecture never seen before.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final

from ...config.records import Arch
from ...config.source_policy import FedoraCoreOS
from ...core.errors import NetworkError, NotFoundError, UpstreamDataError
from ..records import Discovery, Findings, Get, Need, Release, ReleaseKey, Skips, State, newest
from .fcos_metadata import (
    OCI_REPOSITORY,
    Index,
    Updates,
    commitmeta_url,
    day,
    parse_commitmeta,
    parse_index,
    parse_stream,
    parse_updates,
    releases_url,
    stream_url,
    updates_url,
)
from .fedora_kernel import RPM_ARCH, checked, kernel_rpm_urls

__all__ = [
    "Index",
    "Updates",
    "commitmeta_url",
    "discover",
    "kernel_from_rpm_query",
    "kernel_rpm_urls",
    "parse_commitmeta",
    "parse_index",
    "parse_stream",
    "parse_updates",
    "releases_url",
    "stream_url",
    "updates_url",
    "wanted",
]
_NO_UPDATES: Final = Updates(rollouts=(), barriers={}, deadends={})


def kernel_from_rpm_query(text: str, arch: Arch, image: str) -> str:
    """The kernel from what ``rpm -q kernel`` prints inside a release's ``image``: ``kernel-6.17.7-300.fc43.x86_64``.

    Raises UpstreamDataError where it printed anything else, or more than one kernel.
    """
    lines = text.split()
    if len(lines) != 1 or not lines[0].startswith("kernel-"):
        raise UpstreamDataError(
            f"{image}: 'rpm -q kernel' printed '{text.strip()}'",
            hint="expected one line like kernel-6.17.7-300.fc43.x86_64",
        )
    return checked(lines[0].removeprefix("kernel-"), arch, image)


def wanted(
    policy: FedoraCoreOS, current: Mapping[Arch, str], updates: Updates | None, index: Index | None
) -> dict[tuple[str, Arch], frozenset[State]]:
    """The releases of one stream that policy asks for, with their state; never a deadend.

    Without update metadata a deadend could not be told, so nothing but the current release is taken then.
    """
    known: dict[str, frozenset[Arch]] = dict(index.arches) if index and updates else {}
    for arch, version in current.items():
        known[version] = known.get(version, frozenset()) | {arch}
    marks = updates or _NO_UPDATES
    chosen: dict[tuple[str, Arch], frozenset[State]] = {}
    for arch in policy.arches:
        there = [v for v, arches in known.items() if arch in arches and v not in marks.deadends]
        recent = set(newest(there, policy.keep))
        for version in there:
            state: set[State] = set()
            if current.get(arch) == version:
                state.add("current")
            if version in marks.rollouts:
                state.add("rollout")
            if not state:
                state.add("superseded")
            if version in marks.barriers:
                state.add("barrier")
            later = policy.since is not None and day(version) >= policy.since
            if state & {"current", "rollout"} or version in recent or later or (policy.barriers and "barrier" in state):
                chosen[version, arch] = frozenset(state)
    return chosen


def discover(get: Get, policy: FedoraCoreOS, known: Mapping[ReleaseKey, str]) -> Discovery:
    """All releases that policy asks for; three requests a stream, and one per release that ``known`` lacks.

    ``known`` maps (os, channel, version, arch) to the kernel found before. Raises nothing for a feed that fails: it
    becomes a Problem, and what the other feeds say is kept.
    """
    findings = Findings("fedora-coreos", get)
    for stream in policy.streams:
        current = findings.read(stream, stream_url(stream), partial(parse_stream, stream=stream)) or {}
        updates = findings.read(stream, updates_url(stream), partial(parse_updates, stream=stream))
        index = findings.read(stream, releases_url(stream), partial(parse_index, stream=stream))
        if index:
            findings.warn(*index.warnings)
        if updates:
            _report(findings, stream, current, updates, index)
        silent: list[str] = []
        for (version, arch), state in wanted(policy, current, updates, index).items():
            image = index.images.get((version, arch)) if index else None
            if image is None and "current" in state:
                image = f"{OCI_REPOSITORY}:{stream}"
            source = stream_url(stream) if "current" in state else releases_url(stream)
            kernel, need, source = _kernel(findings, stream, version, arch, known, source)
            silent += [f"{version} {RPM_ARCH[arch]}"] if need == "rpmdb" else []
            findings.add(
                Release(
                    os="fedora-coreos",
                    channel=stream,
                    version=version,
                    arch=arch,
                    kernel=kernel,
                    kernel_version=kernel.partition("-")[0] if kernel else "",
                    date=f"{day(version).isoformat()}T00:00:00Z",
                    source_url=source,
                    state=state,
                    need=need,
                    image=image,
                )
            )
        if silent:
            what = "no kernel in the metadata of these builds; the RPM database of their images has to say it"
            findings.warn(f"{stream}: {what}: {', '.join(silent)}")
    return findings.done()


def _kernel(
    findings: Findings, stream: str, version: str, arch: Arch, known: Mapping[ReleaseKey, str], source: str
) -> tuple[str | None, Need | None, str]:
    if kernel := known.get((findings.os, stream, version, arch)):
        return kernel, None, source
    url = commitmeta_url(stream, version, arch)
    try:
        found = parse_commitmeta(findings.fetch(url, immutable=True), url, version, arch)
    except NotFoundError:
        found = None
    except (NetworkError, UpstreamDataError) as error:
        findings.problem(stream, url, error)
        return None, "retry", source
    if found is None:
        return None, "rpmdb", source
    return found, None, url


def _report(findings: Findings, stream: str, current: Mapping[Arch, str], updates: Updates, index: Index | None) -> None:
    """Name what would otherwise be left out in silence."""
    for version in sorted(set(current.values()) & set(updates.deadends)):
        findings.warn(f"{stream_url(stream)}: the current release {version} is a deadend: {updates.deadends[version]}")
    skips = Skips()
    for version in (*updates.rollouts, *updates.barriers):
        if index and version not in index.arches and version not in current.values():
            skips.add("not in the release index", version)
    findings.warn(*skips.warnings(updates_url(stream)))
