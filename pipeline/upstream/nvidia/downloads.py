"""Where NVIDIA keeps the files of a driver, and the documents that say what their bytes hash to.

Whether ``tesla/`` or ``XFree86/`` holds a version is known only by asking (HEAD); a tag of the open modules' repository
proves nothing, since Vulkan betas are tagged there too and lie elsewhere.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

from msgspec import Meta, Struct, field

from ...config.records import Arch, Sha256
from ...core import strict_json
from ...core.errors import UpstreamDataError
from ...core.versions import DriverVersion
from .feeds import NVIDIA_ARCH, version

REDIST: Final = "https://developer.download.nvidia.com/compute/cuda/redist"
REDIST_OF_DRIVERS: Final = "https://developer.download.nvidia.com/compute/nvidia-driver/redist"
"""The same layout for drivers that no CUDA release was tested with; whether it has manifests was not seen."""
REDIST_ARCH: Final[dict[Arch, str]] = {"amd64": "linux-x86_64", "arm64": "linux-sbsa"}
"""``linux-sbsa`` is arm64 on servers; ``linux-aarch64`` is Tegra, whose driver is another."""

_HINT: Final = "the document is refused; see whether its format has changed"
_SUM: Final = re.compile(r"([0-9a-fA-F]+) [ *]([A-Za-z0-9][A-Za-z0-9._+-]*)")
_DIST: Final = re.compile(r"DIST (\S+) ([0-9]{1,15})((?: [A-Z0-9]+ [0-9a-f]+)+)")


class Archive(Struct, frozen=True, kw_only=True):
    """One redist tarball, its size in bytes."""

    url: str
    sha256: str
    size: int


class Redist(Struct, frozen=True, kw_only=True):
    """The driver in a redist manifest: the one that its CUDA release was tested with, not the newest.

    ``fabric``: the Fabric Manager where the manifest has that of the same version.
    """

    version: str
    date: str
    archives: dict[Arch, Archive]
    fabric: dict[Arch, Archive] = {}


class ManifestEntry(Struct, frozen=True, kw_only=True):
    """Size and digests that a distributor measured of a vendor's file."""

    name: str
    size: int
    blake2b: str
    sha512: str


class _Tarball(Struct, frozen=True):
    relative_path: str
    sha256: Sha256
    size: Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,14}\Z")]


class _Driver(Struct, frozen=True):
    version: str
    x86_64: _Tarball | None = field(name="linux-x86_64", default=None)
    sbsa: _Tarball | None = field(name="linux-sbsa", default=None)


class _Redist(Struct, frozen=True):
    release_date: Annotated[str, Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")]
    nvidia_driver: _Driver
    fabricmanager: _Driver | None = None


def runfile_name(driver: DriverVersion, arch: Arch) -> str:
    """``NVIDIA-Linux-x86_64-580.178.04.run``."""
    return f"NVIDIA-Linux-{NVIDIA_ARCH[arch]}-{driver.text}.run"


def tesla_url(driver: DriverVersion, arch: Arch) -> str:
    """The data-centre run file."""
    return f"https://us.download.nvidia.com/tesla/{driver.text}/{runfile_name(driver, arch)}"


def xfree86_url(driver: DriverVersion, arch: Arch) -> str:
    """The run file of the consumer line."""
    directory = f"https://download.nvidia.com/XFree86/Linux-{NVIDIA_ARCH[arch]}"
    return f"{directory}/{driver.text}/{runfile_name(driver, arch)}"


def sha256sum_url(driver: DriverVersion, arch: Arch) -> str:
    """The checksum file beside it; ``tesla/`` has none that was ever seen."""
    return f"{xfree86_url(driver, arch)}.sha256sum"


def redist_manifest_url(cuda: str) -> str:
    """The manifest of one CUDA release (``12.9.1``).

    Raises UpstreamDataError for what is no such version.
    """
    if not re.fullmatch(r"[0-9]{1,2}(\.[0-9]{1,3}){1,2}", cuda):
        raise UpstreamDataError(f"'{cuda}' is not a CUDA release", hint="it looks like 12.9.1")
    return f"{REDIST}/redistrib_{cuda}.json"


def redist_path(driver: DriverVersion, arch: Arch) -> str:
    """The tarball's path below REDIST, as manifests have it."""
    return _path("nvidia_driver", driver, arch)


def fabric_urls(driver: DriverVersion, arch: Arch) -> tuple[str, ...]:
    """Where the Fabric Manager of that version may lie: beside CUDA's archives, or beside the drivers'."""
    return tuple(f"{base}/{_path('fabricmanager', driver, arch)}" for base in (REDIST, REDIST_OF_DRIVERS))


def _path(name: str, driver: DriverVersion, arch: Arch) -> str:
    place = REDIST_ARCH[arch]
    return f"{name}/{place}/{name}-{place}-{driver.text}-archive.tar.xz"


def parse_redist(data: bytes, url: str) -> Redist:
    """The driver of a redist manifest: ``nvidia_driver.linux-x86_64.{relative_path,sha256,size}``, size as a string.

    Raises UpstreamDataError for another document, a driver that is none, a path that is not that driver's, or a
    manifest without a server's architecture.
    """
    manifest = strict_json.decode(data, _Redist, url)
    driver = DriverVersion(version(manifest.nvidia_driver.version, url))
    archives = _archives("nvidia_driver", manifest.nvidia_driver, driver, url)
    if not archives:
        raise UpstreamDataError(f"{url}: driver {driver} is for neither linux-x86_64 nor linux-sbsa", hint=_HINT)
    fabric = manifest.fabricmanager
    of_driver = _archives("fabricmanager", fabric, driver, url) if fabric and fabric.version == driver.text else {}
    return Redist(version=driver.text, date=manifest.release_date, archives=archives, fabric=of_driver)


def _archives(name: str, entry: _Driver, driver: DriverVersion, url: str) -> dict[Arch, Archive]:
    found: dict[Arch, Archive] = {}
    pairs: tuple[tuple[Arch, _Tarball | None], ...] = (("amd64", entry.x86_64), ("arm64", entry.sbsa))
    for arch, tarball in pairs:
        if tarball is None:
            continue
        if tarball.relative_path != _path(name, driver, arch):
            raise UpstreamDataError(f"{url}: '{tarball.relative_path}' is not where {driver} for {arch} lies", hint=_HINT)
        address = f"{url.rpartition('/')[0]}/{tarball.relative_path}"
        found[arch] = Archive(url=address, sha256=tarball.sha256, size=int(tarball.size))
    return found


def parse_sha256sum(data: bytes, url: str, name: str) -> str:
    """The sha256 of the file ``name`` in a checksum file, lines of ``<hex>  <file>`` as sha256sum writes them.

    Raises UpstreamDataError for a sum of another length (an md5sum proves nothing today), a line of another form, or
    where the file is not named, or named with two sums.
    """
    sums: set[str] = set()
    for line in data.decode("utf-8", "replace").splitlines():
        if not line.strip():
            continue
        match = _SUM.fullmatch(line.rstrip())
        if not match:
            raise UpstreamDataError(f"{url}: '{line[:80]}' is not '<sha256>  <file>'", hint=_HINT)
        if len(match[1]) != 64:
            what = "an md5sum" if len(match[1]) == 32 else f"a sum of {len(match[1])} digits"
            raise UpstreamDataError(f"{url}: {what}, not a sha256", hint="only sha256 is taken")
        if match[2] == name:
            sums.add(match[1].lower())
    if len(sums) != 1:
        number = "no sum" if not sums else f"{len(sums)} different sums"
        raise UpstreamDataError(f"{url}: {number} of {name} in it", hint=_HINT)
    return sums.pop()


def parse_manifest(data: bytes, url: str) -> dict[str, ManifestEntry]:
    """Gentoo's Manifest (GLEP 74): ``DIST <file> <size> BLAKE2B <hex> SHA512 <hex>``; other lines are not read.

    Raises UpstreamDataError for a DIST line of another form, one file twice, or none at all.
    """
    found: dict[str, ManifestEntry] = {}
    for line in data.decode("utf-8", "replace").splitlines():
        if not line.startswith("DIST "):
            continue
        match = _DIST.fullmatch(line.rstrip())
        words = match[3].split() if match else []
        digests = dict(zip(words[::2], words[1::2], strict=True))
        blake2b, sha512 = digests.get("BLAKE2B", ""), digests.get("SHA512", "")
        if not match or len(blake2b) != 128 or len(sha512) != 128 or 2 * len(digests) != len(words):
            raise UpstreamDataError(f"{url}: '{line[:60]}' lacks size, BLAKE2B or SHA512", hint=_HINT)
        if match[1] in found:
            raise UpstreamDataError(f"{url}: {match[1]} stands twice in it", hint=_HINT)
        found[match[1]] = ManifestEntry(name=match[1], size=int(match[2]), blake2b=blake2b, sha512=sha512)
    if not found:
        raise UpstreamDataError(f"{url}: no DIST line in it", hint=_HINT)
    return found
