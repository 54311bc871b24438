"""``versions.lock``: everything that may be built, pinned by sha256 and size. Written by ``doit update`` alone.

The file is JSON, one pinned file a line, sorted, so that a change reads well in a pull request and 10 000 kernels parse
in a fraction of a second. Reading is strict: an unknown key, a missing hash, a wrong type, two entries for one thing or
two kernels that would share a tag are errors of one line with the file and the path in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from .errors import BadFileError, DiskError, PipelineError
from .versions import DriverVersion, KernelRelease, check_tag, tag_text

LOCK_FILE: Final = Path("versions.lock")
SCHEMA: Final = 1

Kind = Literal["open", "proprietary"]
Arch = Literal["amd64", "arm64"]
Os = Literal["debian", "fedora-coreos", "flatcar", "container-linux"]
Trust = Literal["signed-index", "vendor-sum", "tls-first-sight"]
KINDS: Final[tuple[Kind, ...]] = ("open", "proprietary")

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+_~-]{0,127}$")]
Version = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+_~:-]{0,99}$")]
RelativePath = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+~:%@-]*(/[A-Za-z0-9][A-Za-z0-9._+~:%@-]*)*$")]
Url = Annotated[str, Meta(pattern=r"^https?://[!-~]+$", max_length=500)]
Date = Annotated[str, Meta(pattern=r"^20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]Z$")]


class File(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One pinned file. It comes from a package archive (``archive`` and ``path``) or from ``urls``, vendor first."""

    name: Name
    version: Version
    sha256: Sha256
    size: Annotated[int, Meta(gt=0)]
    trust: Trust
    archive: Name | None = None
    path: RelativePath | None = None
    urls: tuple[Url, ...] = ()

    @property
    def file_name(self) -> str:
        """The file's own name, as it stands in a build context."""
        return (self.path or self.urls[0]).rsplit("/", 1)[-1]


class Base(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """The runtime base of every image of one architecture: packages that are unpacked, never configured."""

    arch: Arch
    date: Date
    packages: tuple[File, ...]


class Toolchain(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What compiles for one OS: a Debian root made of ``packages`` alone. ``name`` is like ``debian-12``."""

    name: Name
    os: Os
    arch: Arch
    date: Date
    packages: tuple[File, ...]


class OsRelease(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One release of an OS that boots a kernel. ``id`` and ``version_id`` are those of its os-release."""

    channel: Name
    version: Version
    id: Annotated[str, Meta(pattern="^[a-z0-9._-]{1,40}$")]
    version_id: Annotated[str, Meta(pattern="^[0-9A-Za-z._-]{1,40}$")]

    @property
    def os_tag(self) -> str:
        """The form the GPU Operator asks for: ``debian12``, ``flatcar4593.2.5``."""
        return self.id + self.version_id


class Kernel(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, dict=True):
    """One kernel, the files to compile against it and to boot it, and the drivers wanted on it.

    ``kernel`` is what ``uname -r`` prints; ``version`` the kernel.org version it was made from, which rules compare.
    """

    os: Os
    arch: Arch
    kernel: Annotated[str, Meta(min_length=1, max_length=100)]
    version: Version
    toolchain: Name
    date: Date
    headers: Annotated[tuple[File, ...], Meta(min_length=1)]
    image: tuple[File, ...]
    releases: Annotated[tuple[OsRelease, ...], Meta(min_length=1)]
    drivers: tuple[Name, ...]
    stale: bool = False

    @cached_property
    def headers_digest(self) -> str:
        """Sha256 over the sha256 of each headers file: two builds of one kernel string differ in it."""
        return hashlib.sha256("".join(sorted(f.sha256 for f in self.headers)).encode()).hexdigest()

    @cached_property
    def key(self) -> str:
        """``<os>/<arch>:<kernel>``."""
        return f"{self.os}/{self.arch}:{self.kernel}"


class Driver(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One NVIDIA driver of one architecture; every part comes from ``version`` (other_versions names what does not)."""

    version: Name
    arch: Arch
    source: Literal["debian"]
    date: Date
    open: tuple[File, ...] = ()
    proprietary: tuple[File, ...] = ()
    userspace: Annotated[tuple[File, ...], Meta(min_length=1)]
    required: tuple[Kind, ...] = ()
    stale: bool = False

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of kernel module whose sources are pinned."""
        return tuple(kind for kind in KINDS if self.modules(kind))

    def modules(self, kind: Kind) -> tuple[File, ...]:
        """The pinned sources of one kind; empty where the driver has none."""
        return self.open if kind == "open" else self.proprietary


class Pending(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A release, kernel or driver that is known but not pinned, with the reason."""

    os: Os
    arch: Arch
    kernel: str
    drivers: tuple[Name, ...] = ()
    releases: tuple[OsRelease, ...] = ()
    reason: str
    see: str = ""


class Lock(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, dict=True):
    """The whole file."""

    schema: Literal[1]
    bases: tuple[Base, ...] = ()
    toolchains: tuple[Toolchain, ...] = ()
    drivers: tuple[Driver, ...] = ()
    kernels: tuple[Kernel, ...] = ()
    pending: tuple[Pending, ...] = ()

    @cached_property
    def _toolchains(self) -> dict[tuple[str, str], Toolchain]:
        return {(t.name, t.arch): t for t in self.toolchains}

    @cached_property
    def _drivers(self) -> dict[tuple[str, str], Driver]:
        return {(d.version, d.arch): d for d in self.drivers}

    @cached_property
    def _bases(self) -> dict[str, Base]:
        return {b.arch: b for b in self.bases}

    def toolchain(self, kernel: Kernel) -> Toolchain:
        """The toolchain that compiles for ``kernel``."""
        return self._toolchains[kernel.toolchain, kernel.arch]

    def driver(self, version: str, arch: str) -> Driver:
        """The pinned driver of that version for that architecture."""
        return self._drivers[version, arch]

    def base(self, arch: str) -> Base:
        """The runtime base of that architecture."""
        return self._bases[arch]

    def files(self) -> Iterator[File]:
        """Every pinned file, with repetitions."""
        for base in self.bases:
            yield from base.packages
        for toolchain in self.toolchains:
            yield from toolchain.packages
        for driver in self.drivers:
            yield from (*driver.open, *driver.proprietary, *driver.userspace)
        for kernel in self.kernels:
            yield from (*kernel.headers, *kernel.image)


def empty() -> Lock:
    """A lock that pins nothing."""
    return Lock(schema=1)


_decoder: Final = msgspec.json.Decoder(Lock)


def parse(data: bytes, name: str = str(LOCK_FILE)) -> Lock:
    """The lock that ``data`` holds.

    Raises BadFileError with ``name`` and the path of the first thing that is wrong.
    """
    try:
        lock = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadFileError(f"{name}: {error}", hint="'doit update' writes this file; undo the edit") from error
    _check(lock, name)
    return lock


def load(path: Path = LOCK_FILE) -> Lock:
    """The lock in ``path``.

    Raises BadFileError where it cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadFileError(f"{path}: {error.strerror}", hint="'doit update' writes it") from error
    return parse(data, str(path))


def _check(lock: Lock, name: str) -> None:
    def bad(where: str, what: str) -> BadFileError:
        return BadFileError(f"{name}: {what} - at `$.{where}`", hint="'doit update' writes this file; undo the edit")

    def once(where: str, keys: Iterable[object]) -> None:
        seen: set[object] = set()
        for number, key in enumerate(keys):
            if key in seen:
                raise bad(f"{where}[{number}]", f"two entries for {key}")
            seen.add(key)

    once("bases", (b.arch for b in lock.bases))
    once("toolchains", (f"{t.name} {t.arch}" for t in lock.toolchains))
    once("drivers", (f"driver {d.version} {d.arch}" for d in lock.drivers))
    once("kernels", (f"kernel {k.key} headers {k.headers_digest[:12]}" for k in lock.kernels))
    for where, file in _walk(lock):
        from_archive, from_url = file.archive is not None and file.path is not None, bool(file.urls)
        if from_archive == from_url or (file.archive is None) != (file.path is None):
            raise bad(where, f"{file.name} needs either archive and path, or urls")
    for number, driver in enumerate(lock.drivers):
        try:
            DriverVersion(driver.version)
        except PipelineError as error:
            raise bad(f"drivers[{number}].version", error.message) from error
        if not driver.kinds:
            raise bad(f"drivers[{number}]", f"driver {driver.version} has no module sources of either kind")
        if missing := [k for k in driver.required if k not in driver.kinds]:
            raise bad(f"drivers[{number}].required", f"driver {driver.version} has no {missing[0]} sources")
    tags: dict[tuple[str, str], str] = {}
    for number, kernel in enumerate(lock.kernels):
        where = f"kernels[{number}]"
        try:
            KernelRelease(kernel.kernel)
            for version in kernel.drivers:
                for tag in (f"{tag_text(kernel.kernel)}-{version}", *(qualified_tags(kernel, version))):
                    check_tag(tag)
        except PipelineError as error:
            raise bad(f"{where}.kernel", error.message) from error
        if (kernel.toolchain, kernel.arch) not in lock._toolchains:
            raise bad(f"{where}.toolchain", f"no toolchain {kernel.toolchain} for {kernel.arch}")
        if kernel.arch not in lock._bases:
            raise bad(f"{where}.arch", f"no base for {kernel.arch}")
        once(f"{where}.drivers", kernel.drivers)
        once(f"{where}.releases", (f"release {r.channel} {r.version}" for r in kernel.releases))
        for version in kernel.drivers:
            if (version, kernel.arch) not in lock._drivers:
                raise bad(f"{where}.drivers", f"no driver {version} for {kernel.arch}")
        tag = tag_text(kernel.kernel)
        if tags.setdefault((kernel.arch, tag), kernel.kernel) != kernel.kernel:
            raise bad(where, f"kernels {tags[kernel.arch, tag]} and {kernel.kernel} would share the tag {tag}")
    plain: dict[tuple[str, str], set[str]] = {}
    for number, kernel in enumerate(lock.kernels):
        mine = {release.os_tag for release in kernel.releases}
        seen = plain.setdefault((kernel.arch, kernel.kernel), set())
        if both := sorted(mine & seen):
            raise bad(f"kernels[{number}]", f"two kernels {kernel.kernel} would share the tag …-{both[0]}")
        seen |= mine


def _walk(lock: Lock) -> Iterator[tuple[str, File]]:
    groups: list[tuple[str, tuple[File, ...]]] = []
    groups += [(f"bases[{n}].packages", b.packages) for n, b in enumerate(lock.bases)]
    groups += [(f"toolchains[{n}].packages", t.packages) for n, t in enumerate(lock.toolchains)]
    for n, d in enumerate(lock.drivers):
        groups += [(f"drivers[{n}].{part}", getattr(d, part)) for part in ("open", "proprietary", "userspace")]
    for n, k in enumerate(lock.kernels):
        groups += [(f"kernels[{n}].headers", k.headers), (f"kernels[{n}].image", k.image)]
    for where, files in groups:
        for n, file in enumerate(files):
            yield f"{where}[{n}]", file


def qualified_tags(kernel: Kernel, driver: str) -> list[str]:
    """``<nvidia>-<kernel>-<ID><VERSION_ID>`` for every release with that kernel (GPU Operator's form)."""
    os_tags = sorted({release.os_tag for release in kernel.releases})
    return [f"{driver}-{tag_text(kernel.kernel)}-{os_tag}" for os_tag in os_tags]


def dump(lock: Lock) -> bytes:
    """The file's bytes: sorted, one pinned file a line, ending with a newline; equal locks give equal bytes."""
    tidy = msgspec.structs.replace(
        lock,
        bases=tuple(_packages(b) for b in sorted(lock.bases, key=lambda b: b.arch)),
        toolchains=tuple(_packages(t) for t in sorted(lock.toolchains, key=lambda t: (t.name, t.arch))),
        drivers=tuple(
            msgspec.structs.replace(d, userspace=_sorted(d.userspace))
            for d in sorted(lock.drivers, key=lambda d: (DriverVersion(d.version), d.arch))
        ),
        kernels=tuple(
            msgspec.structs.replace(
                k,
                headers=_sorted(k.headers),
                image=_sorted(k.image),
                drivers=tuple(sorted(k.drivers, key=DriverVersion)),
                releases=tuple(sorted(k.releases, key=lambda r: (r.channel, r.version))),
            )
            for k in sorted(lock.kernels, key=lambda k: (k.os, KernelRelease(k.kernel), k.arch, k.headers_digest))
        ),
        pending=tuple(sorted(lock.pending, key=lambda p: (p.os, p.kernel, p.arch, p.reason))),
    )
    return (_layout(msgspec.to_builtins(tidy), 0) + "\n").encode()


def _packages(entry: Any) -> Any:
    return msgspec.structs.replace(entry, packages=_sorted(entry.packages))


def _sorted(files: tuple[File, ...]) -> tuple[File, ...]:
    return tuple(sorted(files, key=lambda f: (f.name, f.version, f.sha256)))


def _layout(value: Any, depth: int) -> str:
    """JSON in which a table or list without inner tables stands on one line."""
    if not isinstance(value, dict | list | tuple) or not value:
        return json.dumps(value, ensure_ascii=False)
    inner = value.values() if isinstance(value, dict) else value
    if isinstance(value, dict) and not any(isinstance(v, dict) or _holds_tables(v) for v in inner):
        return json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict) and not _holds_tables(value):
        return json.dumps(value, ensure_ascii=False)
    pad, end = " " * (depth + 1), " " * depth
    if isinstance(value, dict):
        rows = [f"{pad}{json.dumps(k)}: {_layout(v, depth + 1)}" for k, v in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{end}}}"
    return "[\n" + ",\n".join(pad + _layout(v, depth + 1) for v in value) + f"\n{end}]"


def _holds_tables(value: Any) -> bool:
    return isinstance(value, list | tuple) and any(isinstance(v, dict) for v in value)


def write(path: Path, data: bytes) -> bool:
    """Put ``data`` in ``path`` whole or not at all; False when it was there already.

    Raises DiskError where the disk refuses.
    """
    with contextlib.suppress(OSError):
        if path.read_bytes() == data:
            return False
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise DiskError(f"{path}: {error.strerror}", hint="free some disk space, or mend its rights") from error
    return True
