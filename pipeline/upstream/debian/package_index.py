"""Debian's archive: the packages that its signed indices list.

Formats: wiki.debian.org/DebianRepository/Format, deb-control(5). The chain is InRelease, signed by a key of the
keyring; in it the sha256 of each Packages.xz; in that the sha256 of each package.
"""

from __future__ import annotations

import hashlib
import lzma
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ...config.records import File
from ...core.dpkg_version import DpkgVersion
from ...core.errors import IntegrityError, NotFoundError, PipelineError, UpstreamDataError
from .release import Release, parse_release, verify_inrelease

MAX_INDEX: Final = 512 << 20
"""Bytes an unpacked Packages file may have; Debian's main has some 55 MB."""
_WANTED: Final = frozenset(
    ("Package", "Version", "Architecture", "Filename", "SHA256", "Size", "Depends", "Pre-Depends", "Source")
)
Get = Callable[[str, bool], bytes]
"""``get(url, immutable)``: the body; ``immutable`` says that what is published there never changes."""
Forget = Callable[[str], None]
"""``forget(url)``: the body that ``get`` gave was not what it must be, so no cache may keep it."""


@dataclass(frozen=True)
class Package:
    """One binary package as an index lists it. ``suite`` is a codename, ``archive`` the lock's name of the archive."""

    name: str
    version: str
    arch: str
    path: str
    sha256: str
    size: int
    depends: str
    source: str
    archive: str
    suite: str

    def pin(self) -> File:
        """As the lock pins it."""
        return File(
            name=self.name,
            version=self.version,
            sha256=self.sha256,
            size=self.size,
            trust="signed-index",
            archive=self.archive,
            path=self.path,
        )


@dataclass
class Indices:
    """Every package of the suites that were read, by name, in the order of the suites."""

    packages: dict[str, list[Package]] = field(default_factory=dict)
    releases: list[Release] = field(default_factory=list)
    texts: list[bytes] = field(default_factory=list)
    """The verified indices of component main, for apt's solver."""

    def add(self, found: Iterable[Package]) -> None:
        """Take packages in."""
        for package in found:
            self.packages.setdefault(package.name, []).append(package)

    def newest(self, name: str, fits: Callable[[Package], bool] = lambda _: True) -> Package | None:
        """The package ``name`` of the highest version that ``fits``; of two suites with that version the first."""
        found = (package for package in self.packages.get(name, ()) if fits(package))
        return max(found, key=lambda package: DpkgVersion(package.version), default=None)

    def exact(self, name: str, version: str) -> Package | None:
        """The package of exactly that version."""
        return self.newest(name, lambda package: package.version == version)

    @property
    def date(self) -> str:
        """The newest date of the suites."""
        return max(release.date for release in self.releases)


def parse_packages(text: bytes, *, archive: str, suite: str, where: str) -> Iterator[Package]:
    """The packages of an index.

    Raises UpstreamDataError for a stanza that lacks what is needed.
    """
    for stanza in text.decode("utf-8", "replace").split("\n\n"):
        fields: dict[str, str] = {}
        for line in stanza.split("\n"):
            key, colon, value = line.partition(": ")
            if colon and key in _WANTED:
                fields[key] = value
        if not fields and not stanza.strip():
            continue
        try:
            depends = (fields.get("Pre-Depends", ""), fields.get("Depends", ""))
            yield Package(
                name=fields["Package"],
                version=fields["Version"],
                arch=fields["Architecture"],
                path=fields["Filename"],
                sha256=fields["SHA256"],
                size=int(fields["Size"]),
                depends=", ".join(filter(None, depends)),
                source=fields.get("Source", fields["Package"]).split(" ", 1)[0],
                archive=archive,
                suite=suite,
            )
        except KeyError as error:
            what = f"{where}: package {fields.get('Package', '?')} has no field {error}"
            raise UpstreamDataError(what, hint="try another base, or again later") from error
        except ValueError as error:
            what = f"{where}: package {fields['Package']} has size '{fields['Size']}'"
            raise UpstreamDataError(what, hint="try another base, or again later") from error


def read_suite(
    into: Indices,
    *,
    base: str,
    archive: str,
    suite: str,
    components: Iterable[str],
    arch: str,
    keyring: Path,
    get: Get,
    forget: Forget,
) -> None:
    """Read one suite of the archive at ``base`` into ``into``, each index checked against the signed Release.

    Raises PipelineError; then nothing of the suite was taken in.
    """
    where = f"{base}/dists/{suite}/InRelease"
    try:
        release = parse_release(verify_inrelease(get(where, False), keyring, where), where)
        if suite not in (release.suite, release.codename):  # signed, but not what was asked for: another suite's file
            raise IntegrityError(f"{where} is the index of {release.codename} ({release.suite})", hint="nothing of it is used")
    except (IntegrityError, UpstreamDataError):
        forget(where)
        raise
    found: list[Package] = []
    texts: list[bytes] = []
    for component in components:
        name = f"{component}/binary-{arch}/Packages.xz"
        if component not in release.components or name not in release.hashes:
            raise UpstreamDataError(
                f"{where} lists no {name}",
                hint=f"it has {', '.join(sorted(release.components))}; set components of this suite in [debian]",
            )
        text = _index(base, suite, name, release, get, forget)
        found += parse_packages(text, archive=archive, suite=release.codename, where=f"{suite}/{name}")
        if component == "main":
            texts.append(text)
    into.add(found)
    into.releases.append(release)
    into.texts += texts


def _index(base: str, suite: str, name: str, release: Release, get: Get, forget: Forget) -> bytes:
    """The unpacked index, by its hash where the archive offers that: then an update in the meantime does no harm."""
    sha256, size = release.hashes[name]
    directory = f"{base}/dists/{suite}/{name.rpartition('/')[0]}"
    plain = (f"{base}/dists/{suite}/{name}", False)
    by_hash = (f"{directory}/by-hash/SHA256/{sha256}", True)
    failure: PipelineError | None = None
    for url, immutable in (by_hash, plain) if release.by_hash else (plain,):
        try:
            data = get(url, immutable)
        except NotFoundError as error:
            failure = error
            continue
        got = hashlib.sha256(data).hexdigest()
        if len(data) == size and got == sha256:
            return _unpacked(data, f"{suite}/{name}")
        forget(url)
        failure = IntegrityError(
            f"{url} has {len(data)} bytes and sha256 {got[:16]}…, the signed Release says {size} and {sha256[:16]}…",
            hint="an archive in the middle of its update says so for some minutes; else try another base",
        )
    assert failure is not None
    raise failure


def _unpacked(data: bytes, where: str) -> bytes:
    try:
        unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ)
        text = unpacker.decompress(data, MAX_INDEX)
    except lzma.LZMAError as error:
        raise UpstreamDataError(f"{where} cannot be unpacked ({error})", hint="try again later") from error
    if not unpacker.eof or unpacker.unused_data:
        what = f"{where} is cut short, larger than {MAX_INDEX >> 20} MiB, or followed by something"
        raise UpstreamDataError(what, hint="try again later")
    return text
