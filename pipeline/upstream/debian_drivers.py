"""Debian's kernels and NVIDIA's driver as Debian packages: which packages make one up.

A driver's parts all come from the one upstream version; two tools that Debian has in other versions only
(nvidia-persistenced, nvidia-modprobe) come from the nearest one of the same branch and are named in the image's label.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from ..errors import UpstreamDataError
from ..versions import DriverVersion
from .debian import Indices, Package
from .dpkg_version import DpkgVersion

_SOURCE: Final = re.compile(r"nvidia-graphics-drivers(-tesla)?(-[0-9]+)?")
_OPEN_SOURCE: Final = re.compile(r"nvidia-open-kernel(-[0-9]+)?-source")
_NOT_USERSPACE: Final = re.compile(
    r"xserver-xorg-.*"  # X server drivers
    r"|.*-(dkms|kernel-source|kernel-support|dev|i386)"
    r"|nvidia(-tesla)?(-[0-9]+)?-(driver|driver-full|driver-libs|alternative|detect|legacy-check|suspend-common)"
    r"|nvidia(-tesla)?(-[0-9]+)?-(egl-icd|vulkan-icd|libopencl1)"  # no files of their own; the loaders are the container's
    r"|nvidia(-tesla)?(-[0-9]+)?-driver-libs-.*"
    r"|libgl1-nvidia.*-glx"
)
_OTHER_TOOLS: Final = ("nvidia-persistenced", "nvidia-modprobe")
_HEADERS: Final = re.compile(r"(linux-headers-\S+-common|linux-kbuild-\S+) \((=|>=) ([^)]+)\)")
_IMAGE_PARTS: Final = re.compile(r"(linux-(?:modules|binary|base-image)-\S+) \(= ([^)]+)\)")


def kernels(indices: Indices) -> list[str]:
    """Every kernel release (``uname -r``) that has headers and an image."""
    names = (name.removeprefix("linux-headers-") for name in indices.packages if name.startswith("linux-headers-"))
    return [name for name in names if f"linux-image-{name}" in indices.packages and not name.endswith("-common")]


def kernel_packages(indices: Indices, kernel: str) -> tuple[list[Package], list[Package]] | None:
    """(headers, image) packages of ``kernel``, of one version each; None where the archive has not both.

    Raises UpstreamDataError where the archive lists them but not what they need.
    """
    headers = indices.newest(f"linux-headers-{kernel}")
    if headers is None:
        return None
    image = indices.exact(f"linux-image-{kernel}", headers.version)
    if image is None:
        return None
    found = [headers]
    for name, relation, version in _HEADERS.findall(headers.depends):
        needed = indices.exact(name, version) if relation == "=" else _at_least(indices, name, version)
        if needed is None:
            raise UpstreamDataError(
                f"{headers.name} {headers.version} needs {name} ({relation} {version}), which is not listed",
                hint="add the suite that holds it to [debian] of versions.toml",
            )
        found.append(needed)
    images = [image]
    for name, version in _IMAGE_PARTS.findall(image.depends):
        if part := indices.exact(name, version):
            images.append(part)
    return found, images


def _at_least(indices: Indices, name: str, version: str) -> Package | None:
    return indices.newest(name, lambda package: DpkgVersion(package.version) >= DpkgVersion(version))


def upstream(version: str) -> str:
    """The upstream part of a package version: ``535.309.01`` of ``535.309.01-0+deb12u1``."""
    return DpkgVersion(version).upstream


def driver_packages(indices: Indices, driver: str) -> tuple[list[Package], list[Package], list[Package]] | None:
    """(open, proprietary, userspace) packages of exactly that driver; None where the archive has no part of it.

    Raises UpstreamDataError where it has some parts and lacks module sources or libraries.
    """
    every = [p for found in indices.packages.values() for p in found if upstream(p.version) == driver]
    own = [p for p in every if _SOURCE.fullmatch(p.source)]
    opened = _one(p for p in every if _OPEN_SOURCE.fullmatch(p.name))
    closed = _one(p for p in own if p.name.endswith("-kernel-source") and not _OPEN_SOURCE.fullmatch(p.name))
    if not own and not opened:
        return None
    firmware = [p for p in every if p.name.startswith("firmware-nvidia") and p.name.endswith("gsp")]
    userspace = {p.name: p for p in (*_latest(own), *firmware) if not _NOT_USERSPACE.fullmatch(p.name)}
    if not opened and not closed:
        raise UpstreamDataError(f"the archive lists {driver} without module sources", hint="take the version out of versions.toml")
    if not any("cuda1" in name for name in userspace):
        raise UpstreamDataError(
            f"the archive has module sources of {driver} and no libraries of it", hint="modules and libraries must be of one version"
        )
    for tool in _OTHER_TOOLS:
        if tool not in userspace and (nearest := _nearest(indices, tool, driver)):
            userspace[tool] = nearest
    return opened, closed, sorted(userspace.values(), key=lambda p: p.name)


def _one(packages: Iterable[Package]) -> list[Package]:
    found = sorted(packages, key=lambda p: DpkgVersion(p.version))
    return found[-1:]


def _latest(packages: list[Package]) -> list[Package]:
    """For each name the highest revision."""
    best: dict[str, Package] = {}
    for package in packages:
        if package.name not in best or DpkgVersion(best[package.name].version) < DpkgVersion(package.version):
            best[package.name] = package
    return list(best.values())


def _nearest(indices: Indices, tool: str, driver: str) -> Package | None:
    """The newest ``tool`` of the driver's branch that is not newer than the driver, else the oldest that is."""
    wanted = DriverVersion(driver)
    same: list[tuple[DriverVersion, Package]] = []
    for package in indices.packages.get(tool, ()):
        try:
            version = DriverVersion(upstream(package.version))
        except UpstreamDataError:
            continue
        if version.branch == wanted.branch:
            same.append((version, package))
    same.sort(key=lambda pair: (pair[0], DpkgVersion(pair[1].version)))
    older = [package for version, package in same if version <= wanted]
    return older[-1] if older else same[0][1] if same else None
