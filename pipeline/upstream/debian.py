"""Debian's archive: signed indices, and the kernels and drivers they list.

Formats: the repository format (wiki.debian.org/DebianRepository/Format), deb822 control files (deb-control(5)). The chain
is InRelease, signed by a key of the keyring; in it the sha256 of each Packages.xz; in that the sha256 of each package.
"""

from __future__ import annotations

import hashlib
import lzma
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

from ..errors import IntegrityError, NotFoundError, PipelineError, UpstreamDataError
from ..lock import File
from .dpkg_version import DpkgVersion

MAX_INDEX: Final = 512 << 20
"""Bytes an unpacked Packages file may have; Debian's main has some 55 MB."""
_WANTED: Final = ("Package", "Version", "Architecture", "Filename", "SHA256", "Size", "Depends", "Source")
_HASH_LINE: Final = re.compile(r" ([0-9a-f]{64}) +([0-9]+) (\S+)")
Get = Callable[[str, bool], bytes]


@dataclass(frozen=True)
class Package:
    """One binary package as an index lists it."""

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


@dataclass(frozen=True)
class Release:
    """A suite's signed Release file: its codename, its date (lock form), and (sha256, size) of each index."""

    suite: str
    codename: str
    date: str
    by_hash: bool
    hashes: Mapping[str, tuple[str, int]]


@dataclass
class Indices:
    """Every package of the suites that were read, by name, newest first."""

    packages: dict[str, list[Package]] = field(default_factory=dict)
    releases: list[Release] = field(default_factory=list)
    texts: list[bytes] = field(default_factory=list)
    """The verified main indices, for apt's solver."""

    def add(self, found: Iterable[Package]) -> None:
        """Take packages in."""
        for package in found:
            self.packages.setdefault(package.name, []).append(package)

    def newest(self, name: str, fits: Callable[[Package], bool] = lambda package: True) -> Package | None:
        """The package ``name`` of the highest version that ``fits``."""
        return max((p for p in self.packages.get(name, ()) if fits(p)), key=lambda p: DpkgVersion(p.version), default=None)

    def exact(self, name: str, version: str) -> Package | None:
        """The package of exactly that version."""
        return self.newest(name, lambda package: package.version == version)

    @property
    def date(self) -> str:
        """The newest date of the suites."""
        return max(release.date for release in self.releases)


def verify_inrelease(data: bytes, keyring: Path, where: str) -> bytes:
    """The signed text of an InRelease file; nothing outside the signature comes through.

    Raises IntegrityError where no key of ``keyring`` made a good signature, PipelineError where gpgv is not installed.
    """
    if not keyring.is_file():
        raise PipelineError(f"the keyring {keyring} is not there", hint="install debian-archive-keyring, or set [debian] keyring")
    if shutil.which("gpgv") is None:
        raise PipelineError("gpgv is not installed", hint="install gpgv; ./doit.sh does")
    with tempfile.TemporaryDirectory(prefix="driver-gpgv-") as directory:
        signed, text = Path(directory) / "InRelease", Path(directory) / "Release"
        signed.write_bytes(data)
        command = ["gpgv", "--quiet", "--homedir", directory, "--keyring", str(keyring), "--output", str(text), str(signed)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0 or not text.is_file():
            said = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no signature")
            raise IntegrityError(
                f"{where} is not signed by a key of {keyring} ({said.removeprefix('gpgv: ')})", hint="nothing of it is used"
            )
        return text.read_bytes()


def parse_release(text: bytes, where: str) -> Release:
    """A Release file.

    Raises UpstreamDataError where a field that is needed is missing.
    """
    lines = text.decode("utf-8", "replace").splitlines()
    fields = {key: value.strip() for key, colon, value in (line.partition(":") for line in lines) if colon and key.strip() == key}
    hashes: dict[str, tuple[str, int]] = {}
    inside = False
    for line in lines:
        if line.startswith(" "):
            if inside and (found := _HASH_LINE.fullmatch(line)):
                hashes[found[3]] = (found[1], int(found[2]))
        else:
            inside = line.startswith("SHA256:")
    try:
        date = parsedate_to_datetime(fields["Date"]).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        by_hash = fields.get("Acquire-By-Hash") == "yes"
        release = Release(fields["Suite"], fields["Codename"], date, by_hash, hashes)
    except (KeyError, ValueError, TypeError) as error:
        raise UpstreamDataError(f"{where} is not a Release file ({error})", hint="try again later") from error
    if not hashes:
        raise UpstreamDataError(f"{where} lists no SHA256 sums", hint="try again later")
    return release


def parse_packages(text: bytes, *, archive: str, suite: str, where: str) -> Iterator[Package]:
    """The packages of an index.

    Raises UpstreamDataError for a stanza that lacks what is needed.
    """
    for stanza in text.decode("utf-8", "replace").split("\n\n"):
        if not stanza.strip():
            continue
        fields: dict[str, str] = {}
        for line in stanza.split("\n"):
            key, colon, value = line.partition(": ")
            if colon and key in _WANTED:
                fields[key] = value
        try:
            yield Package(
                name=fields["Package"],
                version=fields["Version"],
                arch=fields["Architecture"],
                path=fields["Filename"],
                sha256=fields["SHA256"],
                size=int(fields["Size"]),
                depends=fields.get("Depends", ""),
                source=fields.get("Source", fields["Package"]).split(" ", 1)[0],
                archive=archive,
                suite=suite,
            )
        except (KeyError, ValueError) as error:
            raise UpstreamDataError(f"{where} has a stanza without {error}", hint="try again later") from error


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
) -> None:
    """Read one suite of the archive at ``base`` into ``into``, each index checked against the signed Release.

    Raises PipelineError; then nothing of the suite was taken in.
    """
    where = f"{base}/dists/{suite}/InRelease"
    release = parse_release(verify_inrelease(get(where, False), keyring, where), where)
    found: list[Package] = []
    texts: list[bytes] = []
    for component in components:
        name = f"{component}/binary-{arch}/Packages.xz"
        if name not in release.hashes:
            continue
        text = _index(base, suite, name, release, get)
        found += parse_packages(text, archive=archive, suite=release.codename, where=f"{suite}/{name}")
        if component == "main":
            texts.append(text)
    if not found:
        raise UpstreamDataError(f"{where} lists no packages for {arch}", hint="check suite, components and architecture")
    into.add(found)
    into.releases.append(release)
    into.texts += texts


def _index(base: str, suite: str, name: str, release: Release, get: Get) -> bytes:
    sha256, size = release.hashes[name]
    directory = f"{base}/dists/{suite}/{name.rpartition('/')[0]}"
    data = b""
    if release.by_hash:
        try:
            data = get(f"{directory}/by-hash/SHA256/{sha256}", True)
        except NotFoundError:
            data = b""
    if not data:
        data = get(f"{base}/dists/{suite}/{name}", False)
    got = hashlib.sha256(data).hexdigest()
    if len(data) != size or got != sha256:
        raise IntegrityError(
            f"{suite}/{name} has sha256 {got}, the signed Release says {sha256}", hint="the archive is being updated? try again"
        )
    try:
        unpacker = lzma.LZMADecompressor()
        text = unpacker.decompress(data, MAX_INDEX)
    except lzma.LZMAError as error:
        raise UpstreamDataError(f"{suite}/{name} cannot be unpacked ({error})", hint="try again later") from error
    if not unpacker.eof:
        raise UpstreamDataError(f"{suite}/{name} is cut short or larger than {MAX_INDEX >> 20} MiB", hint="try again later")
    return text
