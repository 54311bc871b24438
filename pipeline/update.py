"""``doit update``: upstreams and wishes in, lock out. The only thing that reads upstream metadata.

A fixed point: nothing new upstream, no changed byte. An entry keeps its date while its content is the same. What an
upstream that does not answer gave before is kept and the upstream named; what left an archive is kept as ``stale``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec

from .archives import Archives
from .errors import PipelineError, UpstreamDataError
from .fetch import Fetcher
from .lock import Arch, Base, Driver, Kernel, Lock, OsRelease, Toolchain, dump, parse
from .upstream import debian, debian_drivers
from .upstream.apt import Solver
from .upstream.debian import Indices
from .wanted import Debian, Wanted

MAX_INDEX_BYTES = 64 << 20


@dataclass
class Result:
    """The new lock, what changed in words and as data, and what could not be read."""

    lock: Lock
    changes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    json: dict[str, Any] = field(default_factory=dict)


def update(wanted: Wanted, old: Lock, fetcher: Fetcher, archives: Archives) -> Result:
    """What the lock should be now. Never raises for an upstream's fault: that is a problem, and old entries stay."""
    result = Result(old)
    new = old
    if wanted.debian is not None:
        for arch in wanted.debian.arches:
            try:
                indices = read_debian(wanted.debian, arch, fetcher, archives)
                new = debian_lock(wanted, wanted.debian, arch, new, indices, result.problems)
            except PipelineError as error:
                result.problems.append(f"debian/{arch}: {error}; what it gave before is kept")
    new = _wished(wanted, new)
    new = parse(dump(new), "the new lock")
    result.lock, result.changes = new, describe(old, new)
    result.json = {"changes": result.changes, "problems": result.problems, "kernels": len(new.kernels), "drivers": len(new.drivers)}
    return result


def read_debian(wishes: Debian, arch: str, fetcher: Fetcher, archives: Archives) -> Indices:
    """Every suite's indices, verified. For each archive the bases are tried in order."""

    def get(url: str, immutable: bool) -> bytes:
        return fetcher.get(url, max_bytes=MAX_INDEX_BYTES, immutable=immutable)

    indices = Indices()
    for suite in wishes.suites:
        failures: list[PipelineError] = []
        for base in archives.bases(suite.archive):
            try:
                debian.read_suite(
                    indices,
                    base=base,
                    archive=suite.archive,
                    suite=suite.suite,
                    components=suite.components,
                    arch=arch,
                    keyring=Path(wishes.keyring),
                    get=get,
                )
                break
            except PipelineError as error:
                failures.append(error)
        else:
            raise failures[0]
    return indices


def debian_lock(wanted: Wanted, wishes: Debian, arch: Arch, old: Lock, indices: Indices, problems: list[str]) -> Lock:
    """``old`` with Debian's entries of one architecture as the indices have them now."""
    date = indices.date
    with Solver(indices, arch) as solver:
        base = Base(arch=arch, date=date, packages=_pins(solver.closure(wishes.base)))
        name = f"debian-{wishes.version_id}"
        packages = _pins(solver.closure(wishes.toolchain))
        toolchain = Toolchain(name=name, os="debian", arch=arch, date=date, packages=packages)
    before = {(k.arch, k.kernel): k for k in old.kernels if k.os == "debian"}
    present = debian_drivers.kernels(indices)
    mine = [k for k in _matching(present, wishes.kernels)]
    kernels: list[Kernel] = []
    for kernel in mine:
        found = _try(problems, f"kernel {kernel}", lambda kernel=kernel: _kernel(kernel, wanted, wishes, arch, toolchain, indices))  # type: ignore[misc]
        if found is not None:
            kernels.append(_dated(found, before.get((arch, kernel))))
        elif held := before.get((arch, kernel)):
            kernels.append(held)
    names = {k.kernel for k in kernels}
    for (held_arch, kernel), held in before.items():
        if held_arch == arch and kernel not in names and _matching([kernel], wishes.kernels):
            kernels.append(msgspec.structs.replace(held, stale=True))
    for pattern in wishes.kernels:
        if not any(fnmatchcase(k.kernel, pattern) for k in kernels):
            problems.append(f"debian/{arch}: no kernel matches '{pattern}': take it out of [debian] kernels, or add its suite")
    drivers = [d for d in old.drivers if d.arch != arch]
    drivers += _drivers(wanted, old, arch, indices, problems)
    return msgspec.structs.replace(
        old,
        bases=(*(b for b in old.bases if b.arch != arch), _dated(base, next((b for b in old.bases if b.arch == arch), None))),
        toolchains=(
            *(t for t in old.toolchains if (t.name, t.arch) != (name, arch)),
            _dated(toolchain, next((t for t in old.toolchains if (t.name, t.arch) == (name, arch)), None)),
        ),
        kernels=(*(k for k in old.kernels if (k.os, k.arch) != ("debian", arch)), *kernels),
        drivers=tuple(drivers),
    )


def _kernel(kernel: str, wanted: Wanted, wishes: Debian, arch: Arch, toolchain: Toolchain, indices: Indices) -> Kernel:
    found = debian_drivers.kernel_packages(indices, kernel)
    if found is None:
        raise UpstreamDataError(f"headers and image of {kernel} are not both listed in one version", hint="try again later")
    headers, image = found
    release = OsRelease(channel=image[0].suite, version=image[0].version, id="debian", version_id=wishes.version_id)
    return Kernel(
        os="debian",
        arch=arch,
        kernel=kernel,
        version=debian_drivers.upstream(headers[0].version),
        toolchain=toolchain.name,
        date=indices.date,
        headers=_pins(headers),
        image=_pins(image),
        releases=(release,),
        drivers=wanted.drivers_for(kernel),
    )


def _drivers(wanted: Wanted, old: Lock, arch: Arch, indices: Indices, problems: list[str]) -> list[Driver]:
    before = {d.version: d for d in old.drivers if d.arch == arch}
    drivers: list[Driver] = []
    for wish in wanted.drivers:
        held = before.get(wish.exact)
        try:
            parts = debian_drivers.driver_packages(indices, wish.exact)
        except PipelineError as error:
            problems.append(f"driver {wish.exact}: {error}")
            drivers += [held] if held else []
            continue
        if parts is None:
            if held:
                drivers.append(msgspec.structs.replace(held, stale=True))
            else:
                problems.append(f"driver {wish.exact}: no suite of [debian] holds it: add its suite, or take it out of versions.toml")
            continue
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
        drivers.append(_dated(made, held))
    return drivers


def _wished(wanted: Wanted, lock: Lock) -> Lock:
    """Kernels with the drivers that are wanted now and pinned; what nobody wants any more goes."""
    pinned = {(d.version, d.arch) for d in lock.drivers}
    kernels = tuple(
        msgspec.structs.replace(k, drivers=tuple(v for v in wanted.drivers_for(k.kernel) if (v, k.arch) in pinned))
        for k in lock.kernels
    )
    wishes = {wish.exact for wish in wanted.drivers}
    return msgspec.structs.replace(lock, kernels=kernels, drivers=tuple(d for d in lock.drivers if d.version in wishes))


def _matching(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    chosen = tuple(patterns)
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in chosen)]


def _pins(packages: Iterable[debian.Package]) -> tuple[Any, ...]:
    return tuple(sorted((package.pin() for package in packages), key=lambda file: (file.name, file.version, file.sha256)))


def _dated(made: Any, held: Any) -> Any:
    """``made`` with the date of ``held`` where nothing else differs."""
    if held is not None and msgspec.structs.replace(made, date=held.date) == held:
        return held
    return made


def _try(problems: list[str], what: str, call: Callable[[], Kernel]) -> Kernel | None:
    try:
        return call()
    except PipelineError as error:
        problems.append(f"{what}: {error}")
        return None


def describe(old: Lock, new: Lock) -> list[str]:
    """What came, went and changed, a line each, for people and for a pull request."""
    lines: list[str] = []

    def compare(what: str, before: dict[str, Any], after: dict[str, Any]) -> None:
        for name in sorted(after.keys() - before.keys()):
            lines.append(f"+ {what} {name}{_detail(after[name])}")
        for name in sorted(before.keys() - after.keys()):
            lines.append(f"- {what} {name}: no longer wanted")
        for name in sorted(before.keys() & after.keys()):
            if before[name] != after[name]:
                lines.append(f"~ {what} {name}: {_difference(before[name], after[name])}")

    compare("base", {b.arch: b for b in old.bases}, {b.arch: b for b in new.bases})
    compare("toolchain", {f"{t.name}/{t.arch}": t for t in old.toolchains}, {f"{t.name}/{t.arch}": t for t in new.toolchains})
    compare("driver", {f"{d.version}/{d.arch}": d for d in old.drivers}, {f"{d.version}/{d.arch}": d for d in new.drivers})
    compare("kernel", {k.key: k for k in old.kernels}, {k.key: k for k in new.kernels})
    return lines


def _detail(entry: Any) -> str:
    if isinstance(entry, Kernel):
        releases = ", ".join(f"{r.channel} {r.version}" for r in entry.releases)
        return f" ({releases}) with {', '.join(entry.drivers) or 'no driver'}"
    if isinstance(entry, Driver):
        return f" ({' and '.join(entry.kinds)}, {len(entry.userspace)} packages)"
    return f" ({len(entry.packages)} packages)"


def _difference(before: Any, after: Any) -> str:
    if getattr(before, "stale", False) != getattr(after, "stale", False):
        return "left the archive; kept as stale" if after.stale else "is in the archive again"
    words: list[str] = []
    for name in before.__struct_fields__:
        one, two = getattr(before, name), getattr(after, name)
        if one == two or name == "date":
            continue
        if isinstance(one, tuple) and any(hasattr(item, "sha256") for item in (*one, *two)):
            was, now = {f"{f.name} {f.version}" for f in one}, {f"{f.name} {f.version}" for f in two}
            changed = sorted(now - was) or sorted(was - now) or [name]
            words.append(f"{name}: {', '.join(changed[:4])}" + (f" and {len(changed) - 4} more" if len(changed) > 4 else ""))
        else:
            words.append(f"{name}: {_short(one)} -> {_short(two)}")
    return "; ".join(words) or "date"


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(str(getattr(item, "version", item)) for item in value) or "none"
    return str(value)
