"""The lock's entries that Debian gives: base, toolchain, kernels and drivers, out of verified indices.

An entry keeps its date while its content is the same, so that an update without news changes no byte. What is wanted
and has left the archive is kept as ``stale``; what is listed but cannot be made out is kept as it was, with a problem.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import ExitStack
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import msgspec

from ..config.records import Arch, Base, Driver, File, Kernel, Lock, OsRelease, Toolchain
from ..config.versions_toml import Debian, DriverWish, Wanted
from ..core.errors import PipelineError, UpstreamDataError, UsageError
from ..core.versions import KernelRelease
from ..fetch.apt_sources import Archives
from ..upstream.debian import package_index, package_sets
from ..upstream.debian.apt_solver import Solver
from ..upstream.debian.package_index import Indices, Package

_PARTS: Final = re.compile(r"([0-9]+\.[0-9]+)[^-]*(?:-[0-9][^-]*)?-([a-z].*)")
"""Series and flavour of ``6.1.0-50-cloud-amd64`` and of ``6.12.43+deb13-cloud-amd64``."""
MAX_INDEX_BYTES: Final = 64 << 20
"""Bytes a packed index may have; Debian's main has some 9 MB."""
Entry = TypeVar("Entry", Base, Toolchain, Kernel, Driver)


class Server(Protocol):
    """Who gets things from servers: a Fetcher."""

    def get(self, url: str, *, max_bytes: int = ..., immutable: bool = ...) -> bytes:
        """The body at ``url``."""
        ...

    def forget(self, url: str) -> None:
        """Drop ``url`` from the cache."""
        ...


def read_debian(wishes: Debian, arch: str, fetcher: Server, archives: Archives) -> Indices:
    """Every suite's indices, verified. For each suite the bases of its archive are tried in order.

    Raises UsageError where no base is known, and the last base's PipelineError where none gives a right suite.
    """

    def get(url: str, immutable: bool) -> bytes:
        return fetcher.get(url, max_bytes=MAX_INDEX_BYTES, immutable=immutable)

    indices = Indices()
    for suite in wishes.suites:
        failures: list[PipelineError] = []
        for base in archives.bases(suite.archive):
            try:
                package_index.read_suite(
                    indices,
                    base=base,
                    archive=suite.archive,
                    suite=suite.suite,
                    components=suite.components,
                    arch=arch,
                    keyring=Path(wishes.keyring),
                    get=get,
                    forget=fetcher.forget,
                )
                break
            except UsageError:
                raise
            except PipelineError as error:
                failures.append(error)
        else:
            raise failures[0]
    return indices


def debian_lock(
    wanted: Wanted, wishes: Debian, arch: Arch, old: Lock, indices: Indices, problems: list[str], tools: Indices | None = None
) -> Lock:
    """``old`` with Debian's entries of one architecture as the indices have them now.

    ``tools`` are the indices of the architecture that its toolchain runs on, where ``[debian] cross`` names one: the
    toolchain comes from there, and Kbuild's own programs with the headers. Problems with one kernel or driver are added
    to ``problems``. Raises UpstreamDataError where base or toolchain cannot be had, UsageError without apt.
    """
    date = indices.date
    runs_on = wishes.cross.get(arch)
    if runs_on and tools is None:
        raise UpstreamDataError(
            f"the indices of {runs_on}, on which its toolchain runs, could not be read", hint="try again later"
        )
    with ExitStack() as stack:
        solver = stack.enter_context(Solver(indices, arch))
        base = Base(arch=arch, date=date, packages=_pins(solver.closure(_of(wishes.base, arch))))
        if runs_on and tools:
            solver = stack.enter_context(Solver(tools, runs_on))
        name = f"debian-{wishes.version_id}"
        lists = {name: wishes.toolchain}
        if wishes.source_toolchain:
            lists[f"{name}-source"] = (*wishes.toolchain, *wishes.source_toolchain)
        toolchains = [
            Toolchain(
                name=name,
                os="debian",
                arch=arch,
                date=date if tools is None else max(date, tools.date),
                packages=_pins(solver.closure(_of(packages, arch))),
                runs_on=runs_on,
            )
            for name, packages in lists.items()
        ]
    _valid(base, "the base")
    for toolchain in toolchains:
        _valid(toolchain, f"toolchain {toolchain.name}")
    other_bases = [b for b in old.bases if b.arch != arch]
    held_base = next((b for b in old.bases if b.arch == arch), None)
    held_toolchains = {t.name: t for t in old.toolchains if t.arch == arch and t.name in lists}
    other_toolchains = [t for t in old.toolchains if t.arch != arch or t.name not in lists]
    drivers = _drivers(wanted, arch, old, indices, problems)
    given = {driver.version for driver in drivers}
    return msgspec.structs.replace(
        old,
        bases=(*other_bases, dated(base, held_base)),
        toolchains=(*other_toolchains, *(dated(t, held_toolchains.get(t.name)) for t in toolchains)),
        kernels=(
            *(k for k in old.kernels if (k.os, k.arch) != ("debian", arch)),
            *_kernels(wanted, wishes, arch, old, indices, problems, tools),
        ),
        drivers=(
            *(d for d in old.drivers if d.arch != arch or (d.source != "debian" and d.version not in given)),
            *drivers,
        ),
    )


def matches(kernel: str, patterns: Iterable[str]) -> bool:
    """True where ``kernel`` is one of those that the patterns of ``[debian] kernels`` want."""
    return any(fnmatchcase(kernel, pattern) for pattern in patterns)


def _of(packages: Iterable[str], arch: str) -> list[str]:
    """Names of the packages that are wanted on ``arch``: ``linux-compiler-gcc-12-x86 [amd64]`` on one only."""
    split = [package.partition(" ") for package in packages]
    return [name for name, _, only in split if only in ("", f"[{arch}]")]


def wished(names: Iterable[str], wishes: Debian) -> set[str]:
    """Those of ``names`` that ``[debian]`` wants: named to the letter, or by a pattern among the newest ``keep``."""
    matching = {name for name in names if matches(name, wishes.kernels)}
    if not wishes.keep:
        return matching
    lines: dict[tuple[str, str], list[str]] = {}
    for name in sorted(matching, key=KernelRelease):
        if match := _PARTS.fullmatch(name):
            lines.setdefault((match[1], match[2]), []).append(name)
    recent = {name for line in lines.values() for name in line[-wishes.keep :]}
    return {name for name in matching if name in recent or name in wishes.kernels}


def _kernels(
    wanted: Wanted, wishes: Debian, arch: Arch, old: Lock, indices: Indices, problems: list[str], tools: Indices | None
) -> list[Kernel]:
    before = {k.kernel: k for k in old.kernels if (k.os, k.arch) == ("debian", arch)}
    found: dict[str, Kernel] = {}
    listed = package_sets.kernels(indices)
    chosen = wished({*listed, *before}, wishes)
    for name in listed:
        if name not in chosen:
            continue
        held = before.get(name)
        try:
            found[name] = dated(_valid(_kernel(name, wanted, wishes, arch, indices, tools), f"kernel {name}"), held)
        except UpstreamDataError as error:
            problems.append(f"debian/{arch}: kernel {name}: {error}" + ("; the pinned one is kept" if held else ""))
            if held:
                found[name] = held
    for name, held in before.items():
        if name not in found and name in chosen:
            found[name] = msgspec.structs.replace(held, stale=True)
    return list(found.values())


def _kernel(name: str, wanted: Wanted, wishes: Debian, arch: Arch, indices: Indices, tools: Indices | None) -> Kernel:
    KernelRelease(name)  # it reaches tags and Dockerfiles
    headers, image = package_sets.kernel_packages(indices, name, tools)
    first = image[0]
    return Kernel(
        os="debian",
        arch=arch,
        kernel=name,
        version=package_sets.upstream(first.version),
        toolchain=f"debian-{wishes.version_id}",
        date=indices.date,
        headers=_pins(headers),
        image=_pins(image),
        releases=(OsRelease(channel=first.suite, version=first.version, id="debian", version_id=wishes.version_id),),
        drivers=wanted.drivers_for(name),
    )


def _drivers(wanted: Wanted, arch: Arch, old: Lock, indices: Indices, problems: list[str]) -> list[Driver]:
    before = {d.version: d for d in old.drivers if (d.arch, d.source) == (arch, "debian")}
    found: list[Driver] = []
    for wish in wanted.drivers:
        held = before.get(wish.exact)
        try:
            made = _driver(wish, arch, indices)
        except UpstreamDataError as error:
            problems.append(f"driver {wish.exact}/{arch}: {error}" + ("; the pinned one is kept" if held else ""))
            found += [held] if held else []
            continue
        if made is not None:
            found.append(dated(made, held))
        elif held is not None:
            found.append(msgspec.structs.replace(held, stale=True))
        else:
            problems.append(
                f"driver {wish.exact}/{arch}: no suite of [debian] holds it: add its suite, or take it out of versions.toml"
            )
    return found


def _driver(wish: DriverWish, arch: Arch, indices: Indices) -> Driver | None:
    parts = package_sets.driver_packages(indices, wish.exact)
    if parts is None:
        return None
    opened, closed, userspace = map(_pins, parts)
    made = Driver(
        version=wish.exact,
        arch=arch,
        source="debian",
        date=indices.date,
        open=opened,
        proprietary=closed,
        userspace=userspace,
        required=wish.required,
    )
    if missing := [kind for kind in wish.required if kind not in made.kinds]:
        raise UpstreamDataError(
            f"the archive has no {missing[0]} module sources of it, which versions.toml requires",
            hint="change required, or take another version",
        )
    return _valid(made, f"driver {wish.exact}")


def _pins(packages: Iterable[Package]) -> tuple[File, ...]:
    return tuple(sorted((p.pin() for p in packages), key=lambda file: (file.name, file.version, file.sha256)))


def _valid(entry: Entry, what: str) -> Entry:
    """``entry`` itself when every value of it is what the lock allows: names and paths reach Dockerfiles.

    Raises UpstreamDataError with the place of the first that is not.
    """
    try:
        msgspec.convert(msgspec.to_builtins(entry), type(entry))
    except msgspec.ValidationError as error:
        raise UpstreamDataError(f"the index says something odd of {what}: {error}", hint="nothing of it is used") from error
    return entry


def dated(made: Entry, held: Entry | None) -> Entry:
    """``made`` with the date of ``held`` where nothing else but staleness differs: dates enter what is built."""
    if held is None:
        return made
    same: dict[str, Any] = {"date": held.date} | ({"stale": made.stale} if isinstance(made, Kernel | Driver) else {})
    if msgspec.structs.replace(made, date=held.date) == msgspec.structs.replace(held, **same):
        return msgspec.structs.replace(made, date=held.date)
    return made
