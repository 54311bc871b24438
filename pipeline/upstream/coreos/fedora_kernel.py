"""Fedora's kernel packages: the parts of a kernel string, where its RPMs lie, and the kernel of a build to come."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote

from msgspec import Struct

from ...config.records import Arch
from ...core.errors import UpstreamDataError
from ...core.strict_json import decode
from ..records import checked_kernel

KOJI: Final = "https://kojipkgs.fedoraproject.org/packages/kernel"
REPOSITORIES: Final = "https://dl.fedoraproject.org/pub/fedora/linux"
UPDATES_ARCHIVE: Final = "https://fedoraproject-updates-archive.fedoraproject.org/fedora"
CONFIG: Final = "https://raw.githubusercontent.com/coreos/fedora-coreos-config"
RPM_ARCH: Final[dict[Arch, str]] = {"amd64": "x86_64", "arm64": "aarch64"}
_SHAPE: Final = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+-[0-9A-Za-z._+~]+\.fc([0-9]{2,3})\.(x86_64|aarch64)")


class _Package(Struct):
    evra: str


class _Lockfile(Struct):
    packages: dict[str, _Package]


def checked(kernel: str, arch: Arch, url: str) -> str:
    """``kernel`` itself when it is one of Fedora's for ``arch``, for example ``6.17.7-300.fc43.x86_64``.

    Raises UpstreamDataError that names ``url``.
    """
    checked_kernel(kernel, url, _SHAPE)
    if not kernel.endswith(f".{RPM_ARCH[arch]}"):
        raise UpstreamDataError(f"{url}: kernel '{kernel}' is not one for {RPM_ARCH[arch]}", hint="refused")
    return kernel


def split(kernel: str) -> tuple[str, str, str]:
    """``6.17.7-300.fc43.x86_64`` as (``6.17.7``, ``300.fc43``, ``x86_64``): at the first ``-``, and the last ``.``.

    Raises UpstreamDataError for any other shape.
    """
    checked_kernel(kernel, "kernel", _SHAPE)
    version, _, rest = kernel.partition("-")
    release, _, arch = rest.rpartition(".")
    return version, release, arch


def kernel_rpm_urls(kernel: str, package: str = "kernel-devel", keys: Iterable[str] = ()) -> tuple[str, ...]:
    """Where ``package`` of exactly this kernel may lie, in the order to try: build system, updates, releases, archive.

    Koji has a build as it left the builder, unsigned, and apart from it a copy signed by each key (koji, PathInfo.signed():
    ``data/signed/<the last eight digits>``): with fingerprints in ``keys`` those come first. It drops old builds, and the
    repositories keep the newest only, so each place may answer 404. Never another Fedora's or another revision's package, as
    ublue-os/akmods tries: its modules would carry a wrong vermagic. Raises UpstreamDataError for a kernel that is not Fedora's.
    """
    version, release, arch = split(kernel)
    fedora = release.rpartition(".fc")[2]
    file = quote(f"{package}-{kernel}.rpm", safe="~")
    build = f"{KOJI}/{version}/{quote(release, safe='~')}"
    return (
        *dict.fromkeys(f"{build}/data/signed/{key[-8:].lower()}/{arch}/{file}" for key in keys),
        f"{build}/{arch}/{file}",
        f"{REPOSITORIES}/updates/{fedora}/Everything/{arch}/Packages/k/{file}",
        f"{REPOSITORIES}/releases/{fedora}/Everything/{arch}/os/Packages/k/{file}",
        f"{UPDATES_ARCHIVE}/{fedora}/{arch}/{file}",
    )


def parse_lockfile(data: bytes, url: str, arch: Arch) -> str:
    """The kernel of a stream's next build, from ``packages.kernel.evra``; it has no release number yet.

    Raises UpstreamDataError where the file names no kernel, or one of another architecture.
    """
    packages = decode(data, _Lockfile, url).packages
    if "kernel" not in packages:
        raise UpstreamDataError(f"{url}: no package named kernel", hint="see whether the lockfile has changed")
    return checked(packages["kernel"].evra.rpartition(":")[2], arch, url)
