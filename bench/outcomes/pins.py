"""What is measured: one lock out of several Debian releases, each with its own compiler and its own file of wishes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from pipeline.cli.workspace import Workspace
from pipeline.config import lockfile, versions_toml
from pipeline.config.compat import Compat, load
from pipeline.config.records import Lock
from pipeline.config.versions_toml import Debian, Wanted
from pipeline.core.errors import UsageError
from pipeline.core.lazy import lazy
from pipeline.plan.pairs import Plan
from pipeline.update.debian import debian_lock, read_debian

ROOT: Final = Path(__file__).resolve().parents[2]
PLACE: Final = Path("docs/outcomes")
ARCH: Final = "amd64"


def wishes(root: Path) -> list[Wanted]:
    """Each Debian release's wishes, the oldest first.

    Raises BadFileError, and UsageError for a file without [debian].
    """
    found = []
    for path in sorted((root / PLACE).glob("*.toml")):
        one = versions_toml.load(path)
        if one.debian is None:
            raise UsageError(f"{path} has no [debian]", hint="a file of wishes here is for one Debian release")
        found.append(one)
    return sorted(found, key=lambda one: int(one.debian.version_id) if one.debian else 0)


def together(parts: Sequence[Wanted]) -> Wanted:
    """All wishes as one, for what does not ask which release: modules and drivers. The oldest release says how to build."""
    return msgspec.structs.replace(parts[0], drivers=tuple(wish for part in parts for wish in part.drivers))


def merged(parts: Sequence[tuple[str, Lock]]) -> Lock:
    """One lock of several releases' (toolchain's name, lock), every driver wanted on every kernel; the base is the first's."""
    drivers = {driver.version: driver for _, part in parts for driver in part.drivers}
    names = tuple(drivers)
    return Lock(
        schema=1,
        bases=parts[0][1].bases,
        toolchains=tuple(t for name, part in parts for t in part.toolchains if t.name == name),
        drivers=tuple(drivers.values()),
        kernels=tuple(msgspec.structs.replace(k, drivers=names) for _, part in parts for k in part.kernels),
    )


def of_release(held: Lock, name: str, part: Wanted) -> Lock:
    """What a merged lock holds of the release whose toolchain is ``name``."""
    own = {wish.exact for wish in part.drivers}
    return msgspec.structs.replace(
        held,
        toolchains=tuple(t for t in held.toolchains if t.name == name),
        drivers=tuple(d for d in held.drivers if d.version in own),
        kernels=tuple(k for k in held.kernels if k.toolchain == name),
    )


def without_backports(wants: Debian) -> Debian:
    """Wishes for what compiles: as with apt itself, that comes from a release, and only the kernels from its backports."""
    return msgspec.structs.replace(wants, suites=tuple(s for s in wants.suites if not s.suite.endswith("-backports")))


def lifted(rules: Compat) -> Compat:
    """The patches without the rules: the table is to show what happens, and rules foretell it."""
    return Compat(patches=rules.patches)


class Space(Workspace):
    """A checkout with the table's own wishes and lock, and no rule that leaves a pair out. It asks no registry."""

    @lazy
    def parts(self) -> list[Wanted]:
        """The files of wishes."""
        return wishes(self.root)

    @lazy
    def wanted(self) -> Wanted:
        """All wishes as one."""
        return together(self.parts)

    @lazy
    def lock(self) -> Lock:
        """``docs/outcomes/versions.lock``."""
        return lockfile.load(self.root / PLACE / lockfile.LOCK_FILE)

    @lazy
    def plan(self) -> Plan:
        """Every kernel with every driver."""
        return Plan(self.wanted, self.lock, self.renderer, lifted(load(self.root / "compat.toml")))


def pin(space: Space) -> list[str]:
    """Write the lock out of Debian's signed indices; what was not right. A kernel that left the archive stays, as stale.

    Raises PipelineError where an index cannot be had: then the lock is as it was.
    """
    place = space.root / PLACE / lockfile.LOCK_FILE
    held = lockfile.load(place) if place.exists() else lockfile.empty()
    made: list[tuple[str, Lock]] = []
    problems: list[str] = []
    for part in space.parts:
        assert part.debian is not None
        name = f"debian-{part.debian.version_id}"
        before = of_release(held, name, part)
        whole, plain = (
            debian_lock(part, wants, ARCH, before, read_debian(wants, ARCH, space.fetcher, space.archives), said)
            for wants, said in ((part.debian, problems), (without_backports(part.debian), []))
        )
        made.append((name, msgspec.structs.replace(whole, bases=plain.bases, toolchains=plain.toolchains)))
    data = lockfile.dump(merged(made))
    lockfile.parse(data)
    lockfile.write(place, data)
    return problems
