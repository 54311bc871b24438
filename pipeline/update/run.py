"""``doit update``: upstreams and wishes in, lock out. The only thing that reads upstream metadata.

A fixed point: nothing new upstream, no changed byte. What an upstream that does not answer gave before is kept, and the
upstream is named; see update_debian, update_coreos and update_nvidia for what happens to single entries.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from ..config import distributions
from ..config.lockfile import dump, parse
from ..config.policies import policies
from ..config.records import Arch, Kernel, Lock, Pending, Toolchain
from ..config.versions_toml import Debian, DriverWish, Wanted, settings
from ..core.background import aside
from ..core.errors import BadFileError, PipelineError, UsageError
from ..fetch.apt_sources import Archives
from ..fetch.vendor_files import Take
from ..upstream.debian.package_index import Indices
from ..upstream.debian.package_sets import driver_versions
from ..upstream.nvidia.selection import Listed
from .container_images import Images, asked_images
from .debian import Server, debian_lock, matches, read_debian
from .families import policy_of
from .nvidia import Choice, read_nvidia
from .pinning.context import Means
from .reconcile import Notes, coreos_lock, read_coreos
from .report import describe
from .toolchains import vendor_toolchains

MAX_FEED_BYTES: Final = 32 << 20
"""Bytes a feed or a release's metadata may have; the largest recorded feed has 3.6 MB."""


@dataclass
class Result:
    """The new lock, what changed in words and as data, what people should know, and what could not be read.

    The exit status is 2 where ``problems`` is not empty.
    """

    lock: Lock
    changes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    reports: list[str] = field(default_factory=list)

    @property
    def json(self) -> dict[str, Any]:
        """The same for machines."""
        lock = self.lock
        counts = {"kernels": len(lock.kernels), "drivers": len(lock.drivers)}
        waiting = {"pending": len(lock.pending), "pending_drivers": len(lock.pending_drivers)}
        return {"changes": self.changes, "problems": self.problems, "reports": self.reports, **counts, **waiting}


def update(
    wanted: Wanted,
    old: Lock,
    fetcher: Server,
    archives: Archives,
    *,
    today: datetime.date | None = None,
    accept_fewer: bool = False,
    images: Images | None = None,
    take: Take | None = None,
) -> Result:
    """What the lock should be now; nothing is written.

    An upstream's fault is never raised: it is a problem, and old entries stay; so do those of an upstream that lists far
    less than before, unless ``accept_fewer``. ``today`` decides which branches are supported, ``images`` reads kernels out of
    container images where metadata lacks them; ``take`` gets vendors' files that are no feeds, which without it stay pending.
    Raises BadFileError for a policy that cannot be meant, and UsageError where this machine cannot do it: no address of an
    archive is known, or apt is not installed.
    """
    policy = policies(wanted, kind_of=policy_of)
    notes = Notes()

    def get(url: str, immutable: bool) -> bytes:
        return fetcher.get(url, max_bytes=MAX_FEED_BYTES, immutable=immutable)

    coreos = aside(read_coreos, policy, old, get)
    nvidia = aside(read_nvidia, policy.nvidia, get) if policy.nvidia else None
    indices = _read_debian(wanted, fetcher, archives, notes)
    failed = [problem.url for found in coreos.result().values() for problem in found.problems]
    choice = None
    if policy.nvidia and nvidia:
        reading = nvidia.result()
        failed += reading.failed
        reading.listed += _listed(indices, old)
        day = today or datetime.datetime.now(datetime.UTC).date()
        others = [wish.exact for wish in wanted.drivers]
        choice = Choice(policy.nvidia, reading, old, day, others=others, accept_fewer=accept_fewer)
        notes.add(reading.notes)
    for url in failed:
        fetcher.forget(url)  # what came from there was not what its format says: it must not be served from the cache
    new = _debian(wanted, old, indices, choice, notes)
    releases = asked_images(policy.families.get("fedora-coreos"), coreos.result(), images, notes)
    source_keys = policy.kernel_org.keys if policy.kernel_org else ()
    limit = settings(wanted).max_unpacked
    means = Means(get=get, lock=new, source_keys=source_keys, take=take, max_unpacked=limit)
    new = vendor_toolchains(wanted.toolchains, policy, new, means, notes)
    new = coreos_lock(policy, new, releases, means, notes, accept_fewer=accept_fewer)
    new = choice.lock(new, means, notes) if choice else msgspec.structs.replace(new, pending_drivers=())
    try:
        new = parse(dump(_wished(wanted, choice, new)), "the new lock")
    except BadFileError as error:
        notes.problems.append(f"{error.message}; the old lock is kept")
        new = old
    return Result(new, describe(old, new), notes.problems, list(dict.fromkeys(notes.reports)))


def _read_debian(wanted: Wanted, fetcher: Server, archives: Archives, notes: Notes) -> dict[Arch, Indices]:
    """The indices of every architecture whose suites could all be read."""
    found: dict[Arch, Indices] = {}
    for arch in wanted.debian.arches if wanted.debian else ():
        assert wanted.debian is not None
        try:
            found[arch] = read_debian(wanted.debian, arch, fetcher, archives)
        except UsageError:
            raise
        except PipelineError as error:
            notes.problems.append(f"debian/{arch}: {error}; what it gave before is kept")
    return found


def _listed(indices: Mapping[Arch, Indices], old: Lock) -> list[Listed]:
    """Debian's drivers: as its archive lists them, and as the lock has them where it could not be read."""
    listed = [
        Listed(version=version, source="debian", arches=(arch,))
        for arch, found in indices.items()
        for version in driver_versions(found)
    ]
    held = [d for d in old.drivers if d.source == "debian" and d.arch not in indices]
    return listed + [Listed(version=d.version, source="debian", arches=(d.arch,)) for d in held]


def _debian(wanted: Wanted, old: Lock, indices: Mapping[Arch, Indices], choice: Choice | None, notes: Notes) -> Lock:
    """``old`` with Debian's entries of every architecture that was read, the drivers of ``[nvidia]`` that it has among them."""
    new = old
    read: list[Arch] = []
    named = {wish.exact for wish in wanted.drivers}
    for arch, found in indices.items():
        assert wanted.debian is not None
        extra = [
            DriverWish(exact=version, reason="a choice of [nvidia]", kernels=(), required=one.required)
            for version, one in (choice.chosen if choice else {}).items()
            if version not in named and "debian" in one.sources.get(arch, ())
        ]
        wishes = msgspec.structs.replace(wanted, drivers=(*wanted.drivers, *extra))
        try:
            new = debian_lock(wishes, wanted.debian, arch, new, found, notes.problems, _tools(wanted.debian, arch, indices))
            read.append(arch)
        except UsageError:
            raise
        except PipelineError as error:
            notes.problems.append(f"debian/{arch}: {error}; what it gave before is kept")
    if wanted.debian and len(read) == len(wanted.debian.arches):
        names = [kernel.kernel for kernel in new.kernels if kernel.os == "debian"]
        notes.problems += [
            f"debian: no kernel matches '{pattern}': take it out of [debian] kernels, or add its suite"
            for pattern in wanted.debian.kernels
            if not any(matches(name, [pattern]) for name in names)
        ]
    return new


def _tools(wishes: Debian, arch: Arch, indices: Mapping[Arch, Indices]) -> Indices | None:
    """The indices of the architecture on which the toolchain of ``arch`` runs; None where that is its own."""
    return indices.get(wishes.cross[arch]) if arch in wishes.cross else None


def _wished(wanted: Wanted, choice: Choice | None, lock: Lock) -> Lock:
    """Kernels with the drivers that are wanted now; what nobody wants any more goes, what is not pinned is pending."""
    pinned = {(d.version, d.arch) for d in lock.drivers}

    def drivers(os: str, arch: str, kernel: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*wanted.drivers_for(kernel), *(choice.wanted_on(os, arch) if choice else ()))))

    def unpacks(toolchain: Toolchain) -> bool:  # base and userspace; without [debian] the one that is there has to stay
        return toolchain.image is None and (not wanted.debian or toolchain.name == f"debian-{wanted.debian.version_id}")

    kernels = tuple(
        msgspec.structs.replace(k, drivers=tuple(v for v in drivers(k.os, k.arch, k.kernel) if (v, k.arch) in pinned))
        for k in lock.kernels
        if _is_wished(wanted, k)
    )
    pending = {(p.os, p.arch, p.kernel or p.reason): p for p in lock.pending}
    for kernel in kernels:
        open_ = [v for v in drivers(kernel.os, kernel.arch, kernel.kernel) if (v, kernel.arch) not in pinned]
        if open_ and kernel.os not in distributions.NO_FEED:
            reason = f"of its drivers not pinned: {', '.join(open_)}"
            entry = Pending(os=kernel.os, arch=kernel.arch, kernel=kernel.kernel, drivers=tuple(open_), reason=reason)
            pending.setdefault((kernel.os, kernel.arch, kernel.kernel), entry)
    arches = {k.arch for k in kernels} | {p.arch for p in pending.values()} | set(wanted.debian.arches if wanted.debian else ())
    used = {(k.toolchain, k.arch) for k in kernels}
    wishes = {wish.exact for wish in wanted.drivers} | set(choice.chosen if choice else ())
    return msgspec.structs.replace(
        lock,
        kernels=kernels,
        drivers=tuple(d for d in lock.drivers if d.version in wishes and d.arch in arches),
        bases=tuple(b for b in lock.bases if b.arch in arches),
        toolchains=tuple(t for t in lock.toolchains if (t.name, t.arch) in used or (t.arch in arches and unpacks(t))),
        pending=tuple(
            p if p.kernel and not p.releases else msgspec.structs.replace(p, drivers=drivers(p.os, p.arch, p.kernel))
            for p in pending.values()
        ),
    )


def _is_wished(wanted: Wanted, kernel: Kernel) -> bool:
    if kernel.os != "debian":
        return True
    wishes = wanted.debian
    return wishes is not None and kernel.arch in wishes.arches and matches(kernel.kernel, wishes.kernels)
