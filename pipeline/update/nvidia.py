"""Which drivers the lock should have, from NVIDIA's feeds, Debian's archive and the policy in ``[nvidia]``.

No driver goes because a feed was short or silent once: where a source fails, what was chosen before stays; where a
source no longer lists a branch, or a lower version than before, the version held stays and is reported. Where that is
so of more than half of the drivers, the sources are refused.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

import msgspec

from ..config import distributions
from ..config.nvidia_policy import Drivers, Source
from ..config.records import Arch, Driver, Kind, Lock, PendingDriver
from ..core.errors import NetworkError, UpstreamDataError
from ..core.versions import DriverVersion
from ..upstream.nvidia import feeds
from ..upstream.nvidia.downloads import Redist, parse_redist, redist_manifest_url
from ..upstream.nvidia.selection import Chosen, Known, Listed, of_data_centre, of_hints, of_redist, select
from ..upstream.records import Get
from .pinning import pin
from .pinning.context import Means
from .reconcile import Notes

T = TypeVar("T")
_SOURCES: Final[Mapping[str, tuple[Source, ...]]] = {"debian": ("debian",), "run": ("data-centre",), "redist": ("redist",)}
"""Who lists a driver that is pinned from there."""


@dataclass
class Reading:
    """What NVIDIA's feeds say; ``whole``: every feed that decides was read; ``failed``: addresses that gave nothing right."""

    listed: list[Listed] = field(default_factory=list)
    ends: dict[str, datetime.date | bool] = field(default_factory=dict)
    notes: Notes = field(default_factory=Notes)
    whole: bool = True
    failed: list[str] = field(default_factory=list)
    redists: list[Redist] = field(default_factory=list)


def read_nvidia(policy: Drivers, get: Get) -> Reading:
    """Every feed that the policy's sources need, one request each, and the hints."""
    found = Reading()

    def read(url: str, parse: Callable[[bytes, str], T], *, decides: bool = True, immutable: bool = False) -> T | None:
        try:
            value = parse(get(url, immutable), url)
        except (NetworkError, UpstreamDataError) as error:
            kept = "the drivers chosen before are kept" if decides else "nothing depends on it but reports"
            found.notes.problems.append(f"nvidia: {error}; {kept}")
            found.whole = found.whole and not decides
            found.failed.append(url)
            return None
        found.notes.reports += [f"nvidia: {line}" for line in getattr(value, "warnings", ())]
        return value

    if "data-centre" in policy.sources and (centre := read(feeds.DATA_CENTRE_URL, feeds.parse_data_centre)):
        found.listed += of_data_centre(centre)
    for cuda in policy.cuda if "redist" in policy.sources else ():
        if redist := read(redist_manifest_url(cuda), parse_redist, immutable=True):
            found.listed.append(of_redist(redist))
            found.redists.append(redist)
    if ends := read(feeds.END_OF_LIFE_URL, feeds.parse_end_of_life):
        found.ends |= ends.branches
    if hints := read(feeds.UNOFFICIAL_URL, feeds.parse_unofficial, decides=False):
        found.listed += of_hints(hints)
    if newest := read(feeds.NEWEST_URL, feeds.parse_newest, decides=False):
        found.listed += [_hint(version) for version, _ in newest.branches.values()]
    for arch in policy.arches:
        decides = "consumer" in policy.sources
        if latest := read(feeds.latest_url(arch), feeds.parse_latest, decides=decides):
            found.listed.append(Listed(version=latest, source="consumer", arches=(arch,)) if decides else _hint(latest))
    return found


def _hint(version: str) -> Listed:
    return Listed(version=version, source="unofficial", arches=())


class Choice:
    """The drivers of ``[nvidia]``: what to pin, what the kernels should get, what is said about it."""

    def __init__(
        self, policy: Drivers, reading: Reading, old: Lock, today: datetime.date, *, others: Iterable[str], accept_fewer: bool
    ) -> None:
        """``others``: versions that ``[[driver]]`` names, whose entries in the lock are not of this policy."""
        self.policy = policy
        selection = select(policy, Known(listed=tuple(reading.listed), ends=reading.ends), today)
        self.chosen = {chosen.version: chosen for chosen in selection.drivers}
        self.notes = Notes([f"nvidia {line}" for line in selection.reports], [])
        self._redists = tuple(reading.redists)
        self._listed = [entry for entry in reading.listed if entry.source in policy.sources]
        self._keep(_held(old, set(others), policy), whole=reading.whole, accept_fewer=accept_fewer)

    def _keep(self, held: dict[str, Chosen], *, whole: bool, accept_fewer: bool) -> None:
        missing = {
            version: one
            for version, one in held.items()
            if version not in self.chosen and DriverVersion(version).branch not in self.policy.hold
        }
        if whole:
            missing = {version: one for version, one in missing.items() if self._unlisted(version)}
        if whole and accept_fewer:
            self.notes.reports += [f"nvidia {version} is no longer listed, and dropped as told" for version in missing]
            return
        if whole and 2 * len(missing) > len(held):
            self.notes.problems.append(
                f"nvidia: the sources list {len(held) - len(missing)} of the {len(held)} drivers that the lock has of them;"
                " those are kept: 'doit update --accept-fewer' if that is right"
            )
        elif whole:
            self.notes.reports += [
                f"nvidia {version} is no longer listed; kept ('doit update --accept-fewer' drops it)" for version in missing
            ]
        named = {one.version for one in (*self.policy.hold.values(), *self.policy.exact)}
        for version, one in missing.items():
            for other in self._of_branch(version):
                if other not in named and DriverVersion(other) < DriverVersion(version):
                    del self.chosen[other]
            if whole or not self._of_branch(version):
                self.chosen[version] = one

    def _of_branch(self, version: str) -> list[str]:
        branch = DriverVersion(version).branch
        return [other for other in self.chosen if DriverVersion(other).branch == branch]

    def _unlisted(self, version: str) -> bool:
        """True where a held version is missing because a source fell silent or back, not because of policy or a newer one."""
        number = DriverVersion(version)
        branches = self.policy.branches
        if not isinstance(branches, str) and number.branch not in branches:
            return False
        if any(DriverVersion(other) > number for other in self._of_branch(version)):
            return False
        listed = [DriverVersion(entry.version) for entry in self._listed if DriverVersion(entry.version).branch == number.branch]
        return not listed or max(listed) < number

    def wanted_on(self, os: str, arch: str) -> tuple[str, ...]:
        """Versions for the kernels of one OS and architecture."""
        if os not in (distributions.names() if self.policy.os is None else self.policy.os):
            return ()
        return tuple(version for version, one in self.chosen.items() if arch in self._arches(one))

    def _arches(self, one: Chosen) -> tuple[Arch, ...]:
        """Those that a source has it for; all that policy names where no source lists it, since then nobody knows."""
        return tuple(one.sources) or self.policy.arches

    def lock(self, lock: Lock, means: Means, notes: Notes) -> Lock:
        """``lock`` with every chosen driver pinned, or pending with the reason; what this choice has to say goes to ``notes``."""
        drivers = list(lock.drivers)
        pinned = {(driver.version, driver.arch) for driver in drivers}
        pending: list[PendingDriver] = []
        means = msgspec.structs.replace(means, lock=lock, redists=self._redists, fabric_manager=self.policy.fabric_manager)
        for version, one in self.chosen.items():
            for arch in self._arches(one):
                if (version, arch) in pinned:
                    continue
                result = pin.tried(partial(pin.driver, one, arch, means))
                if isinstance(result, Driver):
                    drivers.append(result)
                    if means.fabric_manager and not result.fabric:
                        self.notes.reports.append(f"nvidia {version}/{arch}: no Fabric Manager of that version: not for NVSwitch")
                    continue
                pending.append(
                    PendingDriver(
                        version=version,
                        arch=arch,
                        sources=one.sources.get(arch, ()),
                        required=one.required,
                        reason=result.reason,
                        see=result.see,
                    )
                )
        notes.add(self.notes)
        return msgspec.structs.replace(lock, drivers=tuple(drivers), pending_drivers=tuple(pending))


def _held(old: Lock, others: set[str], policy: Drivers) -> dict[str, Chosen]:
    """What this policy chose before, as far as the lock shows it.

    A version that no source ever listed was a person's wish: it goes with that wish.
    """
    sources: dict[str, dict[Arch, tuple[Source, ...]]] = {}
    required: dict[str, tuple[Kind, ...]] = {}
    for waiting in old.pending_drivers:
        if having := tuple(source for source in policy.sources if source in waiting.sources):
            sources.setdefault(waiting.version, {})[waiting.arch] = having
            required[waiting.version] = waiting.required
    for driver in old.drivers:
        if driver.version not in others and driver.arch in policy.arches:
            sources.setdefault(driver.version, {})[driver.arch] = _SOURCES[driver.source]
            required[driver.version] = driver.required
    return {
        version: Chosen(version=version, sources=found, required=required[version], reason="chosen before")
        for version, found in sources.items()
    }
