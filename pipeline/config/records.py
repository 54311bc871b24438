"""What a lock pins, as frozen records: files, base, toolchains, kernels, drivers. Every value has its pattern.

Nothing that does not match its pattern reaches a Dockerfile, a shell or a tag. Patterns do not end in ``$``, which
lets a newline pass at the end of a value.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from ..core import tags
from ..core.lazy import lazy

Kind = Literal["open", "proprietary"]
Arch = Literal["amd64", "arm64"]
Os = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{1,39}\Z")]
"""An OS family: ``debian``, or one of upstream/families."""
Form = Literal["debs", "rpms", "developer-container", "source"]
"""In what a vendor publishes a kernel's headers; what a build takes of each is made in trees.py."""
Trust = Literal["signed-index", "vendor-sum", "tls-first-sight", "this-machine"]
KINDS: Final[tuple[Kind, ...]] = ("open", "proprietary")
TRIPLES: Final[dict[Arch, str]] = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}
"""How GNU names an architecture, in the names of cross compilers too (wiki.debian.org/Multiarch/Tuples)."""

FILE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~:%@=-]{0,254}")
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+_~-]{0,127}\Z")]
Version = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+_~:-]{0,99}\Z")]
RelativePath = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+~:%@-]*(/[A-Za-z0-9][A-Za-z0-9._+~:%@-]*)*\Z")]
Url = Annotated[str, Meta(pattern=r"^https?://[!-~]+\Z", max_length=500)]
Place = Annotated[str, Meta(pattern=r"^/[ -~]+\Z", max_length=500)]
LINE: Final = r"^[^\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]*\Z"
"""What people write for people: it ends up in terminals, so no newline, no escape code, nothing that turns text around."""
SAYING: Final = r"^(?=.*\S)" + LINE.removeprefix("^")
"""The same, where blanks alone say nothing."""
Line = Annotated[str, Meta(pattern=LINE)]
Reason = Annotated[str, Meta(min_length=1, max_length=700, pattern=LINE)]
Date = Annotated[str, Meta(pattern=r"^20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]Z\Z")]


class File(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One pinned file. It comes from a package archive (``archive`` and ``path``) or from ``urls``, vendor first.

    ``local``, in a ``versions.host.lock`` alone: where it lies on this machine.
    """

    name: Name
    version: Version
    sha256: Sha256
    size: Annotated[int, Meta(gt=0, le=1 << 50)]
    trust: Trust
    archive: Name | None = None
    path: RelativePath | None = None
    urls: tuple[Url, ...] = ()
    local: Place | None = None

    @property
    def file_name(self) -> str:
        """The file's own name, as it stands in a build context; a machine's ``.config`` is ``config`` there."""
        if self.local:
            return self.local.rsplit("/", 1)[-1].lstrip(".")
        return (self.path or self.urls[0]).rsplit("/", 1)[-1]


def kept(store: Path, sha256: str) -> Path:
    """Where the file with these bytes lies in ``store``, the folder of pinned files."""
    return store / "sha256" / sha256[:2] / sha256


class Base(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """The runtime base of every image of one architecture: packages that are unpacked, never configured."""

    arch: Arch
    date: Date
    packages: Annotated[tuple[File, ...], Meta(min_length=1)]


class BaseImage(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A vendor's container image, pinned by the digest of its manifest; ``tag`` is what people call it."""

    name: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9.-]*(:[0-9]{1,5})?(/[a-z0-9][a-z0-9._-]*)+\Z", max_length=200)]
    tag: Name
    digest: Annotated[str, Meta(pattern=r"^sha256:[0-9a-f]{64}\Z")]


class Toolchain(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, dict=True):
    """What compiles for one OS: a Debian root made of ``packages`` alone, or a vendor's ``image`` with ``packages`` on top.

    ``name`` is like ``debian-12`` or ``fedora-44``.
    """

    name: Name
    os: Os
    arch: Arch
    date: Date
    packages: tuple[File, ...]
    image: BaseImage | None = None
    runs_on: Arch | None = None
    """What its programs are for, where that is not ``arch``: then it holds a cross compiler."""

    @lazy
    def gcc(self) -> str | None:
        """The upstream version of its compiler, ``12.2.0``; None where no package ``gcc-<n>``, or RPM ``gcc``, is pinned."""
        triple = re.escape(f"-{TRIPLES[self.arch]}") if self.crosses else ""
        compiler = re.compile("gcc" if self.image else f"gcc-[0-9]+{triple}")
        versions = (f.version for f in self.packages if compiler.fullmatch(f.name))
        return next((re.split("[-+~]", version)[0] for version in versions), None)

    @property
    def crosses(self) -> bool:
        """True where what it makes does not run in it."""
        return self.runs_on not in (None, self.arch)

    @property
    def from_tag(self) -> str:
        """What the engine here knows ``image`` by, wherever it was pulled from; an index's digest is the same on each machine.

        Only for a toolchain that has one.
        """
        assert self.image is not None
        of_machine = "" if self.arch == "amd64" else f"-{self.arch}"
        return f"driver-from:{self.image.digest.removeprefix('sha256:')[:16]}{of_machine}"

    @property
    def prefix(self) -> str:
        """What stands before the names of its binutils and compiler: ``aarch64-linux-gnu-`` where it crosses, else nothing."""
        return f"{TRIPLES[self.arch]}-" if self.crosses else ""


class OsRelease(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One release of an OS that boots a kernel. ``id`` and ``version_id`` are those of its os-release."""

    channel: Name
    version: Version
    id: Annotated[str, Meta(pattern=r"^[a-z0-9._-]{1,40}\Z")]
    version_id: Annotated[str, Meta(pattern=r"^[0-9A-Za-z._-]{1,40}\Z")]
    rollout: bool = False
    """True where the vendor's feed lists a rollout of it: of the release that hosts go to, and of the one they come from."""

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
    form: Form = "debs"
    stale: bool = False

    @lazy
    def headers_digest(self) -> str:
        """Sha256 over the sha256 of each headers file: two builds of one kernel string differ in it."""
        return hashlib.sha256("".join(sorted(f.sha256 for f in self.headers)).encode()).hexdigest()

    @lazy
    def key(self) -> str:
        """``<os>/<arch>:<kernel>``."""
        return f"{self.os}/{self.arch}:{self.kernel}"


class Driver(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One NVIDIA driver of one architecture; every part comes from ``version`` (other_versions names what does not).

    ``fabric``: the Fabric Manager, which machines with NVSwitch need; beside NVIDIA's own archives only.
    """

    version: Name
    arch: Arch
    source: Literal["debian", "run", "redist"]
    date: Date
    open: tuple[File, ...] = ()
    proprietary: tuple[File, ...] = ()
    userspace: Annotated[tuple[File, ...], Meta(min_length=1)]
    fabric: tuple[File, ...] = ()
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
    """A kernel that is known but not pinned, the releases that have it, the drivers wanted on it, and the reason.

    ``kernel`` is "" where not even that is known of the releases. Of a pinned kernel it names what is not: releases of it
    with other headers, or drivers that are pending themselves.
    """

    os: Os
    arch: Arch
    kernel: str
    drivers: tuple[Name, ...] = ()
    releases: tuple[OsRelease, ...] = ()
    reason: Reason
    see: Line = ""


class PendingDriver(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A driver that is wanted but not pinned; ``sources`` list it, best first."""

    version: Name
    arch: Arch
    sources: tuple[Name, ...] = ()
    required: tuple[Kind, ...] = ()
    reason: Reason
    see: Line = ""


class Lock(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, dict=True):
    """The whole file."""

    schema: Literal[1]
    bases: tuple[Base, ...] = ()
    toolchains: tuple[Toolchain, ...] = ()
    drivers: tuple[Driver, ...] = ()
    kernels: tuple[Kernel, ...] = ()
    pending: tuple[Pending, ...] = ()
    pending_drivers: tuple[PendingDriver, ...] = ()

    @lazy
    def _toolchains(self) -> dict[tuple[str, str], Toolchain]:
        return {(t.name, t.arch): t for t in self.toolchains}

    @lazy
    def _drivers(self) -> dict[tuple[str, str], Driver]:
        return {(d.version, d.arch): d for d in self.drivers}

    @lazy
    def _bases(self) -> dict[str, Base]:
        return {b.arch: b for b in self.bases}

    def toolchain(self, kernel: Kernel) -> Toolchain:
        """The toolchain that compiles for ``kernel``."""
        return self._toolchains[kernel.toolchain, kernel.arch]

    def unpacker(self, arch: str) -> Toolchain:
        """The toolchain whose dpkg unpacks base and userspace: the first of that architecture made of Debian's packages."""
        return min((t for t in self.toolchains if t.arch == arch and t.image is None), key=lambda t: t.name)

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
            yield from (*driver.open, *driver.proprietary, *driver.userspace, *driver.fabric)
        for kernel in self.kernels:
            yield from (*kernel.headers, *kernel.image)


def is_tarball(name: str) -> bool:
    """Whether a file of a kernel of form ``source`` is kernel.org's source; the other one is its configuration."""
    return name.startswith("linux-") and name.endswith(".tar.xz")


def qualified_tags(kernel: Kernel, driver: str) -> list[str]:
    """``<nvidia>-<kernel>-<ID><VERSION_ID>`` for every release with that kernel (GPU Operator's form)."""
    os_tags = sorted({release.os_tag for release in kernel.releases})
    return [tags.qualified(driver, kernel.kernel, os_tag) for os_tag in os_tags]
