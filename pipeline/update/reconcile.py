"""The lock's entries that the CoreOS sources give: kernels of Fedora CoreOS, Flatcar and Container Linux.

No list shrinks in silence. A channel whose feeds fail keeps what it gave. A release that policy still wants and that its
source no longer lists is kept and reported; where that is so of more than half of a channel, the source is refused. A
release goes when newer ones have taken its place, or when versions.toml no longer asks for its channel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import partial

import msgspec

from ..config import distributions
from ..config.policies import Policies
from ..config.records import Arch, Kernel, Lock, Os, OsRelease, Pending
from ..config.source_policy import SourcePolicy
from ..core.background import aside
from ..core.versions import numbers_of
from ..upstream.records import Discovery, Get, Release, ReleaseKey
from . import families
from .pinning import pin
from .pinning.context import Means, Unpinned

_Place = tuple[str, str, str]
"""Architecture, kernel, and the digest of its headers (the reason, where no kernel is known)."""


@dataclass
class Notes:
    """What a run has to say besides the lock: for people to know, and what could not be read (exit status 2)."""

    reports: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, other: Notes) -> None:
        """Take over what another source had to say."""
        self.reports += other.reports
        self.problems += other.problems


def read_coreos(policies: Policies, old: Lock, get: Get) -> dict[Os, Discovery]:
    """What every enabled source lists now; the sources are read beside each other, each one feed after the other."""
    known = _known(old)
    running = {os: aside(families.family(os).discover, get, policy, known) for os, policy in policies.families.items()}
    return {os: done.result() for os, done in running.items()}


def coreos_lock(
    policies: Policies,
    old: Lock,
    found: Mapping[Os, Discovery],
    means: Means,
    notes: Notes,
    *,
    accept_fewer: bool,
) -> Lock:
    """``old`` with the kernels and pending entries of every CoreOS source as ``found`` says; drivers are not looked at."""
    kernels = [k for k in old.kernels if k.os in distributions.NO_FEED]
    pending = [p for p in old.pending if p.os in distributions.NO_FEED]
    for os, policy in policies.families.items():
        source = _Source(os, policy, old, found[os], notes, accept_fewer)
        mine, waiting = source.entries(msgspec.structs.replace(means, keys=policy.keys, lock=old))
        kernels += mine
        pending += waiting
    return msgspec.structs.replace(old, kernels=tuple(kernels), pending=tuple(pending))


def os_release(key: ReleaseKey, *, rollout: bool = False) -> OsRelease:
    """How a host with that release names itself in its os-release; ``rollout`` as the source's feed has it."""
    os, channel, version, _ = key
    name, number = families.family(os).names(version)
    return OsRelease(channel=channel, version=version, id=name, version_id=number, rollout=rollout)


def _known(lock: Lock) -> dict[ReleaseKey, str]:
    """The kernel of every release that the lock has, so that nobody is asked for it again."""
    entries: tuple[Pending | Kernel, ...] = (*lock.pending, *lock.kernels)
    return {(e.os, r.channel, r.version, e.arch): e.kernel for e in entries if e.kernel for r in e.releases}


class _Source:
    """One OS: what the lock held of it against what its source lists now."""

    def __init__(self, os: Os, policy: SourcePolicy, old: Lock, found: Discovery, notes: Notes, accept_fewer: bool) -> None:
        self.os, self.policy, self.notes, self.accept_fewer = os, policy, notes, accept_fewer
        self.family = families.family(os)
        channels = self.family.channels(policy)
        self.pinned: dict[ReleaseKey, list[Kernel]] = {}
        self.waiting: dict[ReleaseKey, Pending] = {}
        self.rolling: set[ReleaseKey] = set()
        for kernel in old.kernels:
            for release in kernel.releases if kernel.os == os else ():
                key = os, release.channel, release.version, kernel.arch
                self.pinned.setdefault(key, []).append(kernel)
                self.rolling |= {key} if release.rollout else set()
        for entry in old.pending:
            for release in entry.releases if entry.os == os else ():
                key = os, release.channel, release.version, entry.arch
                self.waiting[key] = entry
                self.rolling |= {key} if release.rollout else set()
        held = {**dict.fromkeys(self.pinned), **dict.fromkeys(self.waiting)}
        self.held = [key for key in held if key[1] in channels and key[3] in policy.arches]
        self.found = {release.key: release for release in found.releases}
        notes.reports += [f"{os}: {line}" for line in found.warnings]
        notes.problems += [f"{os} {p.channel}: {p.message}; what it gave before is kept" for p in found.problems]
        self.failed = {p.channel.partition("-")[0] for p in found.problems}

    def entries(self, means: Means) -> tuple[list[Kernel], list[Pending]]:
        """Kernels and pending entries as they should be."""
        fewer = self._fewer()
        taken = {key: release for key, release in self.found.items() if key[1] not in fewer}
        kernels: dict[_Place, Kernel] = {}
        why: dict[_Place, Pending] = {}
        for key in (*taken, *self._kept(taken, fewer)):
            release = taken.get(key)
            for result in self._results(key, release, means):
                if isinstance(result, Kernel):
                    _merge(kernels, result, self._os_release(key, release))
                else:
                    self._wait(why, key, release, result)
        return list(kernels.values()), list(why.values())

    def _os_release(self, key: ReleaseKey, release: Release | None) -> OsRelease:
        """The release for the lock. Whether it is rolled out says the feed, no clock; where that failed, what it said before."""
        told = release is not None and "rollout" in release.state
        silent = release is None or key[1] in self.failed
        return os_release(key, rollout=told or (silent and key in self.rolling))

    def _results(self, key: ReleaseKey, release: Release | None, means: Means) -> Sequence[Kernel | Unpinned]:
        pinned = [k for k in self.pinned.get(key, ()) if release is None or release.kernel in (None, k.kernel)]
        if pinned:
            return pinned
        if release is None:
            held = self.waiting[key]
            return [Unpinned(held.reason, held.see)]
        if release.kernel is None:
            return [pin.unknown_kernel(release)]
        return [pin.tried(partial(self.family.pin, release, means))]

    def _wait(self, why: dict[_Place, Pending], key: ReleaseKey, release: Release | None, reason: Unpinned) -> None:
        """Note that a release is pending: one entry a kernel; where no kernel is known, one a reason."""
        kernel = (release.kernel or "") if release else self.waiting[key].kernel
        place_of = self._os_release(key, release)
        arch: Arch = "arm64" if key[3] == "arm64" else "amd64"
        place = (arch, kernel, "" if kernel else reason.reason)
        before = why.get(place)
        if before is None:
            entry = Pending(os=self.os, arch=arch, kernel=kernel, releases=(place_of,), reason=reason.reason, see=reason.see)
        else:
            entry = msgspec.structs.replace(before, releases=(*before.releases, place_of))
            if reason.reason not in before.reason.split("; "):
                entry = msgspec.structs.replace(entry, reason=f"{before.reason}; {reason.reason}"[:700])
        why[place] = entry

    def _kept(self, taken: Mapping[ReleaseKey, Release], fewer: Set[str]) -> list[ReleaseKey]:
        """Held releases that stay though ``taken`` lacks them."""
        kept: list[ReleaseKey] = []
        for key in self.held:
            if key in taken:
                continue
            if key[1] in self.failed or key[1] in fewer:
                kept.append(key)
            elif self._still_wanted(key):
                name = f"{self.os} {key[1]} {key[2]}/{key[3]}"
                if self.accept_fewer:
                    self.notes.reports.append(f"{name} is no longer listed, and dropped as told")
                else:
                    self.notes.reports.append(f"{name} is no longer listed; kept ('doit update --accept-fewer' drops it)")
                    kept.append(key)
        return kept

    def _still_wanted(self, key: ReleaseKey) -> bool:
        """True where policy, as far as the lock can tell, would take that release were it listed.

        Fewer than ``keep`` newer ones of its channel (of its line, for LTS) have taken its place, or it is of the days that
        ``since`` asks for. The lock has no days: a Flatcar release is of them where an older one is.
        """
        others = [numbers_of(other[2]) for other in self.found if _line(other) == _line(key)]
        number = numbers_of(key[2])
        if sum(other > number for other in others) < max(self.policy.keep, 1):
            return True
        if self.policy.since is None:
            return False
        if self.family.day:
            return self.family.day(key[2]) >= self.policy.since
        return any(other < number for other in others)

    def _fewer(self) -> frozenset[str]:
        """The channels that list far less than the lock has of them: nothing is taken from there."""
        if self.accept_fewer:
            return frozenset()
        fewer: set[str] = set()
        for channel in sorted({key[1] for key in self.held} - self.failed):
            held = [key for key in self.held if key[1] == channel]
            gone = [key for key in held if key not in self.found and self._still_wanted(key)]
            if 2 * len(gone) > len(held):
                fewer.add(channel)
                self.notes.problems.append(
                    f"{self.os} {channel}: lists {len(held) - len(gone)} of the {len(held)} releases that the lock has of it;"
                    " what it gave before is kept: 'doit update --accept-fewer' if that is right"
                )
        return frozenset(fewer)


def _line(key: ReleaseKey) -> tuple[str, str, str]:
    """Releases of one line follow each other: a channel, for LTS a year's, on one architecture."""
    _, channel, version, arch = key
    return channel, version.partition(".")[0] if channel == "lts" else "", arch


def _merge(kernels: dict[_Place, Kernel], kernel: Kernel, release: OsRelease) -> None:
    """Note that a release has ``kernel``: entries are by kernel and headers, with all releases that are taken now."""
    place = (kernel.arch, kernel.kernel, kernel.headers_digest)
    before = kernels.get(place)
    releases = (*before.releases, release) if before else (release,)
    kernels[place] = msgspec.structs.replace(before or kernel, releases=releases)
