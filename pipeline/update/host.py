"""``doit update --host``: one machine's kernel and its configuration in, ``versions.host.lock`` out.

A kernel that Debian packs is pinned by its packages, which have what a proof needs; every other one by kernel.org's source and
its own configuration. A fixed point, as ``doit update`` is: the same machine gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ..config import host_lockfile
from ..config.compat import Compat
from ..config.records import Arch, File, Kernel, Lock, OsRelease, Toolchain
from ..config.versions_toml import Debian, Wanted
from ..core.errors import IntegrityError, UpstreamDataError, UsageError
from ..core.versions import DriverVersion
from ..fetch import local_files
from ..fetch.apt_sources import Archives
from ..plan.pairs import Plan
from ..plan.render import Renderer
from .debian import Server, dated, debian_lock, read_debian
from .pinning import pin_source
from .pinning.context import Means, Unpinned
from .this_machine import MAX_IMAGE, Machine, no_config


@dataclass(frozen=True)
class Result:
    """``lock`` is the new versions.host.lock, ``kernel`` what it pins; ``reports``: what people should know."""

    lock: Lock
    kernel: Kernel
    reports: list[str]


@dataclass(frozen=True)
class Sources:
    """What may be asked: servers, package archives, and how a vendor's file is got. ``store`` keeps pinned files."""

    fetcher: Server
    archives: Archives
    means: Means
    store: Path


def update_host(
    wanted: Wanted, main: Lock, held: Lock | None, machine: Machine, sources: Sources, rules: Compat, driver: str = ""
) -> Result:
    """What ``versions.host.lock`` should be for ``machine``; nothing is written. ``held`` is what it is.

    Raises UsageError for what is not there or not wished, IntegrityError and UpstreamDataError for files that are not right,
    NetworkError, BadFileError.
    """
    if any((k.arch, k.kernel) == (machine.arch, machine.release) for k in main.kernels):
        raise UsageError(f"versions.lock pins {machine.release} already", hint=f"doit 'image:*{machine.release}*' builds it")
    if wanted.debian is None:
        raise UsageError("versions.toml has no [debian]", hint="what compiles a machine's own kernel comes from there")
    reports: list[str] = []
    arch = machine.arch
    new = _debian(wanted, wanted.debian, arch, machine.release, main, held, sources)
    kernel = next((k for k in new.kernels if (k.os, k.arch, k.kernel) == ("debian", arch, machine.release)), None)
    toolchains: tuple[Toolchain, ...] = ()
    if kernel is not None and not machine.told:
        kernel = msgspec.structs.replace(kernel, os="host", releases=(_release(machine),))
    else:
        kernel, toolchain, reports = _of_source(wanted.debian, machine, new, sources)
        toolchains = (toolchain,)
    kernel = msgspec.structs.replace(kernel, drivers=_drivers(wanted, main, kernel, toolchains, rules, driver))
    before = next((k for k in held.kernels if k.key == kernel.key), None) if held else None
    made = Lock(schema=1, kernels=(dated(kernel, before),), toolchains=toolchains)
    host_lockfile.merged(main, made)  # what we write we can read
    return Result(made, kernel, reports)


def _debian(wanted: Wanted, wishes: Debian, arch: Arch, release: str, main: Lock, held: Lock | None, sources: Sources) -> Lock:
    """``main`` as Debian's archive has it now, with that kernel if there is such, and the toolchain for sources."""
    indices = read_debian(wishes, arch, sources.fetcher, sources.archives)
    toolchains = {(t.name, t.arch): t for t in (*(held.toolchains if held else ()), *main.toolchains)}
    before = msgspec.structs.replace(main, kernels=(), toolchains=tuple(toolchains.values()))
    problems: list[str] = []
    only = msgspec.structs.replace(wishes, kernels=(release,), keep=0)
    new = debian_lock(msgspec.structs.replace(wanted, drivers=()), only, arch, before, indices, problems)
    if problems:
        raise UpstreamDataError(problems[0], hint="try again later, or give --config to build it from kernel.org's source")
    return new


def _release(machine: Machine) -> OsRelease:
    return OsRelease(channel="host", version=machine.release, id=machine.id, version_id=machine.version_id)


def _of_source(wishes: Debian, machine: Machine, new: Lock, sources: Sources) -> tuple[Kernel, Toolchain, list[str]]:
    name = f"debian-{wishes.version_id}-source"
    toolchain = next((t for t in new.toolchains if (t.name, t.arch) == (name, machine.arch)), None)
    if toolchain is None:
        raise UsageError(
            "versions.toml has no [debian] source_toolchain", hint="a kernel's source needs flex, bison and libssl-dev besides"
        )
    if machine.config is None:
        raise no_config(machine)
    version = pin_source.kernel_org_version(machine.release)
    if version is None:
        raise UsageError(f"{machine.release} does not begin with a version of kernel.org", hint="it looks like 6.1.176")
    config = local_files.keep(machine.config, sources.store, pin_source.MAX_CONFIG)
    arch = pin_source.check_config(config.path, str(machine.config), machine.release, version)
    if arch != machine.arch:
        raise IntegrityError(f"{machine.config} is of a kernel for {arch}, this machine is {machine.arch}", hint="update there")
    files: tuple[File | Unpinned, ...] = (pin_source.tarball(version, sources.means), config.pin("config", machine.release))
    if unpinned := [file for file in files if isinstance(file, Unpinned)]:
        raise UsageError(unpinned[0].reason, hint="versions.toml takes its full fingerprint, and where you read it")
    image: Sequence[File] = ()
    reports = []
    if machine.image:
        image = (local_files.keep(machine.image, sources.store, MAX_IMAGE).pin("kernel", machine.release),)
    else:
        why = f" ({machine.unread})" if machine.unread else ""
        reports.append(
            f"no kernel image of {machine.release} was found{why}: without one to boot it cannot be proved: give --kernel-image"
        )
    kernel = Kernel(
        os="host",
        arch=machine.arch,
        kernel=machine.release,
        version=version,
        toolchain=name,
        date=toolchain.date,
        form="source",
        headers=tuple(file for file in files if isinstance(file, File)),
        image=tuple(image),
        releases=(_release(machine),),
        drivers=(),
    )
    return kernel, toolchain, reports


def _drivers(
    wanted: Wanted, main: Lock, kernel: Kernel, toolchains: tuple[Toolchain, ...], rules: Compat, told: str
) -> tuple[str, ...]:
    """The driver that is told; else those that [[driver]] wishes on that kernel; else the newest that no rule leaves out."""
    pinned = sorted((d.version for d in main.drivers if d.arch == kernel.arch), key=DriverVersion)
    if told:
        if told not in pinned:
            raise UsageError(
                f"versions.lock pins no driver {told} for {kernel.arch}", hint=f"it pins {', '.join(pinned) or 'none'}"
            )
        return (told,)
    if wished := tuple(version for version in wanted.drivers_for(kernel.kernel) if version in pinned):
        return wished
    every = msgspec.structs.replace(kernel, drivers=tuple(pinned))
    both = host_lockfile.merged(main, Lock(schema=1, kernels=(every,), toolchains=toolchains))
    pairs = Plan(wanted, both, Renderer(wanted, both), rules).select(["image:host/*"]) if pinned else ()
    if usable := [pair.driver.version for pair in pairs if pair.exclusion is None]:
        return (max(usable, key=DriverVersion),)
    what = f"; each is left out: {pairs[0].exclusion.reason}" if pairs and pairs[0].exclusion else ""
    raise UsageError(
        f"versions.lock pins no driver for {kernel.kernel} ({kernel.arch}){what}",
        hint="wish one in [[driver]], and 'doit update'",
    )
