"""Which of NVIDIA's drivers to build: what ``versions.toml`` wishes, held against what the sources list.

No version is guessed. A version that a person wrote (``hold``, ``exact``) is taken as written, and reported where no
source lists it; all others are the newest that a source lists in a branch that is supported on the day of the run. What
is newer than the policy, has ended, or has no known end is reported.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping

from msgspec import Struct, field

from ...config.nvidia_policy import SUPPORTED, Drivers, Source
from ...config.records import KINDS, Arch, Kind
from ...core.versions import DriverVersion
from .downloads import Redist
from .feeds import DataCentre, Hints


class Listed(Struct, frozen=True, kw_only=True):
    """One driver as one source lists it; ``type`` is the branch's where the source says."""

    version: str
    source: Source
    arches: tuple[Arch, ...]
    type: str = ""


class Known(Struct, frozen=True, kw_only=True):
    """What all sources together say; ``ends`` as in nvidia_feeds.EndOfLife."""

    listed: tuple[Listed, ...]
    ends: Mapping[str, datetime.date | bool] = field(default_factory=dict)


class Chosen(Struct, frozen=True, kw_only=True):
    """One driver to pin: ``sources`` of each architecture, best first; none where no source lists the version.

    ``required`` is empty where the policy names no kinds for the branch.
    """

    version: str
    sources: dict[Arch, tuple[Source, ...]]
    required: tuple[Kind, ...]
    reason: str


class Selection(Struct, frozen=True, kw_only=True):
    """Drivers in ascending order, and what a person should know, one line each."""

    drivers: tuple[Chosen, ...]
    reports: tuple[str, ...]


def of_data_centre(feed: DataCentre) -> tuple[Listed, ...]:
    """The data-centre feed's drivers."""
    return tuple(
        Listed(version=release.version, source="data-centre", arches=tuple(release.runfiles), type=branch.type)
        for branch in feed.branches
        for release in branch.releases
    )


def of_redist(redist: Redist) -> Listed:
    """A redist manifest's driver."""
    return Listed(version=redist.version, source="redist", arches=tuple(redist.archives))


def of_hints(hints: Hints) -> tuple[Listed, ...]:
    """The unofficial list's, betas left out."""
    stable = ("official", "long-lived-branch-release")
    return tuple(Listed(version=hint.version, source="unofficial", arches=()) for hint in hints.hints if hint.maturity in stable)


def select(policy: Drivers, known: Known, today: datetime.date) -> Selection:
    """The drivers that ``policy`` wishes of what is ``known``, as of ``today``."""
    return _Selecting(policy, known, today).done()


class _Selecting:
    def __init__(self, policy: Drivers, known: Known, today: datetime.date) -> None:
        self.policy = policy
        self.today = today
        self.listed: dict[str, list[Listed]] = {}
        self.hinted: dict[str, list[str]] = {}
        for entry in known.listed:
            branch = DriverVersion(entry.version).branch
            if entry.source in policy.sources:
                self.listed.setdefault(branch, []).append(entry)
            else:
                self.hinted.setdefault(branch, []).append(entry.version)
        self.ends: dict[str, datetime.date | bool] = {**known.ends, **policy.ends}
        self.chosen: dict[str, Chosen] = {}
        self.ended: list[str] = []
        self.reports: list[str] = []

    def done(self) -> Selection:
        wished = None if self.policy.branches == SUPPORTED else self.policy.branches
        candidates = set(self.listed) | set(self.policy.hold) | set(wished or ())
        for branch in sorted(candidates, key=int):
            self._branch(branch, wished)
        if self.ended:
            hint = "a reason in 'reasons' takes one all the same"
            self.reports.append(f"support has ended, not taken: {', '.join(self.ended)}; {hint}")
        for exact in self.policy.exact:
            self._take(exact.version, exact.reason)
        hinted = [version for branch in sorted(self.hinted, key=int) if (version := self._hinted(branch))]
        if hinted:
            self.reports.append(f"said to be out, and no source of drivers lists them: {', '.join(hinted)}")
        drivers = sorted(self.chosen.values(), key=lambda chosen: DriverVersion(chosen.version))
        return Selection(drivers=tuple(drivers), reports=tuple(self.reports))

    def _branch(self, branch: str, wished: tuple[str, ...] | None) -> None:
        newest = _newest(entry.version for entry in self.listed.get(branch, ()))
        if hold := self.policy.hold.get(branch):
            self._take(hold.version, hold.reason)
            if newest and DriverVersion(hold.version) < DriverVersion(newest):
                self.reports.append(f"{branch}: {newest} is out, held at {hold.version}: {hold.reason}")
        elif newest is None:
            self.reports.append(f"{branch}: in the policy, and no source lists a driver of it")
        elif (against := self._against(branch, wished)) is None:
            self._take(newest, self.policy.reasons.get(branch, "newest of its branch"))
        elif against:
            self.reports.append(f"{branch}: {newest} is out and not taken: {against}")

    def _against(self, branch: str, wished: tuple[str, ...] | None) -> str | None:
        """Why a branch is not taken: None where it is, "" where that needs no report."""
        if wished is not None and branch not in wished:
            return "newer than the policy" if all(int(branch) > int(wish) for wish in wished) else ""
        if branch in self.policy.reasons:
            return None
        if wished is None:
            types = {entry.type for entry in self.listed[branch] if entry.type}
            if types and not types & set(self.policy.types):
                return f"its type is '{', '.join(sorted(types))}'"
        end = self.ends.get(branch)
        if end is None:
            return "no source says when its support ends; give the day in 'ends', or a reason in 'reasons'"
        if end is True or (end is not False and end <= self.today):
            self.ended.append(branch if end is True else f"{branch} ({end})")
            return ""
        return None

    def _take(self, version: str, reason: str) -> None:
        branch = DriverVersion(version).branch
        entries = [entry for entry in self.listed.get(branch, ()) if entry.version == version]
        sources: dict[Arch, tuple[Source, ...]] = {}
        for arch in self.policy.arches:
            having = {entry.source for entry in entries if arch in entry.arches}
            if found := tuple(source for source in self.policy.sources if source in having):
                sources[arch] = found
            elif entries:
                self.reports.append(f"{branch}: no source has {version} for {arch}")
        if not entries:
            self.reports.append(f"{branch}: {version} is wished, and no source lists it")
        required = tuple(kind for kind in KINDS if kind in self.policy.kinds.get(branch, ()))
        self.chosen[version] = Chosen(version=version, sources=sources, required=required, reason=reason)

    def _hinted(self, branch: str) -> str | None:
        """What the hints know beyond the sources; nothing of branches older than all that are listed: 173, 304."""
        hinted, listed = _newest(self.hinted[branch]), _newest(e.version for e in self.listed.get(branch, ()))
        known = sorted(int(name) for name in self.listed)
        if hinted is None or (listed is None and known and int(branch) < known[0]):
            return None
        return hinted if listed is None or DriverVersion(listed) < DriverVersion(hinted) else None


def _newest(versions: Iterable[str]) -> str | None:
    return max(versions, key=DriverVersion, default=None)
